"""What a conformance test expects to be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refused(*kinds: type[Exception], of: str) -> Iterator[None]:
    """The block has to raise one of these.

    Args:
        kinds: Types of errors.
        of: Name of what is refused, for the message.

    Raises:
        AssertionError: Nothing was raised.
    """
    try:
        yield
    except kinds:
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    raise AssertionError(f"{of} was taken, expected {names}")
