"""Blends: the latest checkpoint plus bounded multiples of the steps that led to it."""
