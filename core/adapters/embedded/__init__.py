"""The engines of the default run: PostgreSQL, Valkey and ClickHouse out of wheels, no Docker, no root."""
