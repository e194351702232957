"""Suites: items with their settings, read, checked and locked."""
