"""ClickHouse, the store of ticks."""
