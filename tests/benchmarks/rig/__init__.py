"""What the benchmarks share: the systems measured beside ours, and what measures them."""
