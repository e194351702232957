"""Samplers behind one ask/tell protocol."""
