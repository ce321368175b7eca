"""The pictures that the emulator paints."""
