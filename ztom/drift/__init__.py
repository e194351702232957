"""Watching a model's traffic: has its quality fallen, have its inputs moved, and what moved?"""
