"""The search for the best scaling factors, on Ray Tune."""

from cluster.environment import keep_on_loopback

keep_on_loopback()  # before any module of the package imports Ray
