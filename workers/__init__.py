"""The workshop: everything slow or dangerous runs here, one process per queue."""
