"""What can go wrong, whose turn it is then, and the errors raised on purpose."""
