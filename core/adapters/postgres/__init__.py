"""PostgreSQL, the ledger."""
