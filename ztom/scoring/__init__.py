"""Error functions (lower is better) and the statistics that turn errors into a verdict."""
