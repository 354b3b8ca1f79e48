"""Redis, Valkey or Dragonfly: the job queue and the newest quotes. Nothing here that cannot be lost."""
