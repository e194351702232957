"""Data of the loop: versions of data sets, their splits and labels, and what is worth a label."""
