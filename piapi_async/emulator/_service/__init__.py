"""What the emulated service does, apart from HTTP: tasks, credits, uploads, and what it refuses."""
