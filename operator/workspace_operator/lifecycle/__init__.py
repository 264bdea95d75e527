"""What should happen: pure functions over values. Nothing here does I/O, reads a clock or logs."""
