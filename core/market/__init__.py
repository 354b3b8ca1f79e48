"""What is true of ticks, wherever they are stored."""
