"""Local pictures on their way into a request: opened, checked, made to fit, and uploaded where asked for."""
