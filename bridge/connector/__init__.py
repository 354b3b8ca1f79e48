"""The client end of the wire: reads a terminal without loss and pushes what it read to a bridge."""
