"""A model on suites: its answers, their values, and both on disk."""
