"""Real chains of checkpoints, small enough to be trained where the demo runs."""
