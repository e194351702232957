"""How many engines, clusters and servers the tests start: they are what a run of the tests costs.

Every process that the tests start writes a line for each into one file (see
``counting/sitecustomize.py``); at the end they are counted, and a run with more than `MOST` fails.
Whoever needs one more shares one that is there, or raises the number and says why in the commit.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "ZTOM_TEST_STARTS"
#: vLLM engines, Ray clusters, and servers in a process of their own, in one run of all tests.
MOST = {"engine": 36, "cluster": 18, "server": 12}

_FOLDER = str(Path(__file__).with_name("counting"))


def watch() -> None:
    """Have this process and all that it starts write down what they start."""
    if VARIABLE not in os.environ:  # workers of pytest-xdist inherit it
        descriptor, path = tempfile.mkstemp(prefix="ztom-test-starts-")
        os.close(descriptor)
        os.environ[VARIABLE] = path
        others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        os.environ["PYTHONPATH"] = os.pathsep.join([_FOLDER, *others])
    if _FOLDER not in sys.path:
        sys.path.insert(0, _FOLDER)
    runpy.run_path(str(Path(_FOLDER, "sitecustomize.py")))  # this process began without it


def record(kind: str) -> None:
    """Write down a start that no hook sees."""
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(f"{kind}\n")


def counted() -> Counter[str]:
    """Starts so far, by kind."""
    return Counter(Path(os.environ[VARIABLE]).read_text().split())


def forget() -> None:
    """Remove the file."""
    Path(os.environ.pop(VARIABLE)).unlink(missing_ok=True)


def excess(starts: Mapping[str, int], most: Mapping[str, int] = MOST) -> list[str]:
    """What was started more often than it may be, in words."""
    return [
        f"{count} {kind} starts, at most {most.get(kind, 0)} are expected: share one that is there "
        "(tests/conftest.py), or raise tests/helpers/starts.py and say why"
        for kind, count in starts.items()
        if count > most.get(kind, 0)
    ]
