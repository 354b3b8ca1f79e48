"""Redis, Valkey or Dragonfly: the queue, the latest quotes; nothing that cannot be lost."""
