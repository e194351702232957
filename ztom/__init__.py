"""Z-TOM: find, prove, write and serve the best blend of a chain of checkpoints.

A chain is a base checkpoint and its fine-tuned iterations, in training order. With one scaling
factor per transition, ``W(alpha) = W_n + sum_i alpha_i * (W_i - W_(i-1))``:

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> import ztom
>>> from ztom.demo.toy import make_toy_chain
>>> with TemporaryDirectory() as name:
...     toy = make_toy_chain(Path(name) / "toy")  # a base and two iterations, a few kilobytes each
...     chain = ztom.load_chain(toy.chain_file)
...     variant = ztom.blend(chain, [0.1, -0.5], Path(name) / "variant", dtype="float32")
...     again = ztom.load_variant(variant.folder)  # reads every byte and compares it
>>> chain.names
('base -> first', 'first -> second')
>>> again.factors == variant.factors == (0.1, -0.5)
True

`run_search` finds the factors, `evaluate` and `decide` say whether the result ships, `deploy` gives
it its traffic. ``examples/`` has each of them in a few lines.

What is named here is imported when it is used, so that ``import ztom`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ztom.version import __version__, python_refusal

_refusal = python_refusal(*sys.version_info[:2])
if _refusal is not None:
    if sys.argv[:1] == ["-m"]:  # python -m ztom: for a person, who needs no traceback
        sys.stderr.write(f"{_refusal}\n")
        raise SystemExit(3)
    raise ImportError(_refusal)

if TYPE_CHECKING:
    from ztom.api import (
        blend,
        decide,
        deploy,
        evaluate,
        load_chain,
        load_variant,
        run_search,
    )
    from ztom.client import Client
    from ztom.errors import ZtomError
    from ztom.search.config import SearchConfig

__all__ = [
    "Client",
    "SearchConfig",
    "ZtomError",
    "__version__",
    "blend",
    "decide",
    "deploy",
    "evaluate",
    "load_chain",
    "load_variant",
    "run_search",
]

#: Where a name comes from, unless it is a function of `ztom.api`.
_ELSEWHERE = {
    "Client": "ztom.client",
    "SearchConfig": "ztom.search.config",
    "ZtomError": "ztom.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "ztom.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the module, also of what is not imported yet."""
    return sorted({*globals(), *__all__})
