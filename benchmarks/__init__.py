"""What the README quotes, runnable: ``make bench`` or ``python -m benchmarks``."""
