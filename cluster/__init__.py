"""Starting and joining Ray, and Ray jobs."""
