"""The search for the best scaling factors, on Ray Tune."""
