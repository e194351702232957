"""Sequences in batches: whoever hands stimuli over some at a time cuts them here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of ``items``, in order; the last one may be shorter.

    Args:
        items: Items to cut into batches.
        size: Most items of a batch, at least 1.

    >>> list(batches("abcde", 2))
    ['ab', 'cd', 'e']

    Raises:
        ValueError: The size is below 1.
    """
    if size < 1:
        raise ValueError(f"a batch holds at least one item, got {size}")
    return (items[start : start + size] for start in range(0, len(items), size))
