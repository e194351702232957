"""The loop: when a fresh model is due, what is tried first, and what nothing passing means."""
