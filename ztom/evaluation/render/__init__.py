"""A verdict as people and their tools read it; everything follows from ``verdict.json``.

The names, reasons and texts in it come from models and traffic: in each form they stay text.
"""
