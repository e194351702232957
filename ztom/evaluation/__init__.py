"""What decides what ships: suites, how a model is run on them, and the gate."""
