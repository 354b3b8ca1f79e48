"""Every socket in the wall: what the house needs from outside, as Protocols; the hub plugs adapters in."""
