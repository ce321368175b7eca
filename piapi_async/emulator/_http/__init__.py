"""The emulator's HTTP side: endpoints, faults, webhooks, and the page to watch it on."""
