"""The control plane: projects, checkpoints, weight edits and searches over HTTP."""
