"""The topology in ArangoDB."""
