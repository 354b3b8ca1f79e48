"""The far side of each socket: one folder per product; vendors are named only here. Adapters do not know each other."""
