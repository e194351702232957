"""Intervals, tests and plans over errors and counts; nothing here knows what they measure."""
