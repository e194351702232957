"""Ray under everything: starting and joining it, Serve on it, and jobs."""
