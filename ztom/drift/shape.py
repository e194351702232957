"""What can be counted of a text without understanding it: its length, its form, its language."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from ztom.extras import require_extra

_BINS = 8
#: Keys of an object that tell its form; the rest is counted.
_KEYS = 8


def form_of(text: str) -> str:
    """The form of an input: ``text``, ``object a, b`` by its keys, ``list``, or ``broken JSON``."""
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return "text"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "broken JSON"
    if isinstance(value, list):
        return "list"
    keys = sorted(value)
    more = f" and {len(keys) - _KEYS} more" if len(keys) > _KEYS else ""
    return f"object {', '.join(keys[:_KEYS])}{more}"


def length_bins(texts: Sequence[str]) -> Callable[[str], str]:
    """A function from a text to its bin of length, by quantiles of these texts' lengths.

    Args:
        texts: Texts of the reference, at least one.
    """
    lengths = np.array([len(text) for text in texts])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _BINS + 1)[1:-1]))

    def bin_of(text: str) -> str:
        return f"bin {int(np.searchsorted(edges, len(text)))}"

    return bin_of


def language_of(text: str) -> str:
    """Code of a text's likeliest language, ISO 639-1.

    Raises:
        ConfigError: The package that tells languages apart is not installed.
    """
    require_extra("py3langid", extra="languages", purpose="telling languages apart")
    import py3langid

    return str(py3langid.classify(text)[0])
