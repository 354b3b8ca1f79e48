"""What may cross between rooms: frames of the wire, jobs of the queue, and their codecs."""
