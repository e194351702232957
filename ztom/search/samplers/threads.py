"""Small matrices on one thread.

A Gaussian process over fifty trials works on matrices so small that handing them to several threads
costs far more than it gains: ten times as much, measured on two busy cores, because idle threads
spin.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def one_thread() -> threadpool_limits:
    """A context in which BLAS and OpenMP use one thread; what was set before comes back after
    it.
    """
    return threadpool_limits(limits=1)
