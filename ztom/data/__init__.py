"""Data of the loop: what is worth a label."""
