"""The front door: authenticates, validates, enqueues and answers; nothing here takes long."""
