"""Plain frozen values with units; no I/O."""
