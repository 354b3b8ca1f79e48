"""The audit trail's arithmetic: what is hashed, and how each event is chained to the one before it."""
