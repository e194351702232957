"""A search's report: one self-contained page."""
