"""Z-TOM: find, prove, write and serve the best blend of a chain of checkpoints."""

__version__ = "0.1.0"
