"""The command line, ``ztom``: thin commands over the packages that do the work.

It is the one place that reaches into `tune_search` and `serve_apps`, inside the commands that need
them.
"""

from ztom.cli.main import app, main

__all__ = ["app", "main"]
