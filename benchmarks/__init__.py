"""What the pool costs, beside the raw limit and beside other pools: ``python -m benchmarks --help``."""
