"""Ray Serve applications of Z-TOM."""

from cluster.environment import keep_on_loopback

keep_on_loopback()  # before any module of the package imports Ray
