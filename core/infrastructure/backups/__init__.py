"""Backups of all stores at once: how they are made, where they are kept, how they are proven, how they come back."""
