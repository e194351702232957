"""Ray under everything: starting and joining it, Serve on it, and jobs."""

from cluster.environment import keep_on_loopback

keep_on_loopback()  # before any module of the package imports Ray
