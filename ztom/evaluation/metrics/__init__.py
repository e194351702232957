"""Metrics: from an answer and its target to a value."""
