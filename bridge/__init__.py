"""The hot path: ticks come in over WebSocket, are stored durably and fan out; no queue is involved."""
