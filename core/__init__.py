"""The foundations: what gateway, workers and bridge share. Imports no room."""
