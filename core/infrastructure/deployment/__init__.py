"""The local deployment: everything `tickgate up` runs on one machine, under one data directory."""
