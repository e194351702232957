"""The counts that bound what a run of the tests may start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import starts

FAKE = {
    **dict.fromkeys(("vllm/__init__.py", "vllm/v1/__init__.py", "vllm/v1/engine/__init__.py"), ""),
    **dict.fromkeys(("ray/__init__.py", "ray/_private/__init__.py"), ""),
    "vllm/v1/engine/core.py": "class EngineCore:\n    def __init__(self):\n        pass\n",
    "ray/_private/node.py": "class Node:\n    def start_head_processes(self):\n        pass\n",
}
START = """
from vllm.v1.engine.core import EngineCore
from ray._private.node import Node
EngineCore(), EngineCore(), Node().start_head_processes()
"""


def test_starts_in_another_process_are_counted(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    counts.touch()
    for name, source in FAKE.items():
        file = tmp_path / "packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    counting = Path(starts.__file__).with_name("counting")
    path = os.pathsep.join([str(counting), str(tmp_path / "packages")])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, starts.VARIABLE: str(counts)}
    subprocess.run([sys.executable, "-c", START], env=environment, check=True)
    assert sorted(counts.read_text().split()) == ["cluster", "engine", "engine"]


def test_more_starts_than_are_expected_are_told() -> None:
    most = {"engine": 2, "cluster": 1}
    assert starts.excess({"engine": 2, "cluster": 0}, most) == []
    (engines,) = starts.excess({"engine": 3, "cluster": 1}, most)
    assert engines.startswith("3 engine starts, at most 2 are expected")
