"""One search in a pipe, on the default engine, over much that users bring.

What it proves is looked at in several files: its console, the forms of its data, its chain.
"""

from __future__ import annotations

import io
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from installed import Installed

USER = {"role": "user", "content": "Is it raining?"}
ASSISTANT = {"role": "assistant", "content": "No."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
CALL = {"type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TOOL_TURNS = (
    USER,
    {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1"}]},
    {"role": "tool", "tool_call_id": "c1", "content": "clouds"},
    ASSISTANT,
)
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Is it raining?"},
        {"from": "gpt", "value": "No."},
    ]
}
ALPACA = {"instruction": "Translate", "input": "rain", "output": "Regen"}
WORDS = ("apple", "banana", "cherry", "dog", "eagle", "fox", "grape", "house", "island")


@dataclass(frozen=True)
class WideSearch:
    """What came of the search.

    Attributes:
        folder: Folder that it ran in.
        status: Exit status of the command.
        lines: What it printed in a pipe: each line with the second at which it came.
    """

    folder: Path
    status: int
    lines: list[tuple[float, str]]

    @property
    def run(self) -> Path:
        """Folder of what it wrote."""
        return self.folder / "run"

    @property
    def printed(self) -> str:
        """All lines."""
        return "\n".join(text for _, text in self.lines)

    @property
    def silences(self) -> list[float]:
        """Seconds before each line; what an interpreter takes to end is no wait for a line."""
        times = [0.0, *(time for time, _ in self.lines)]
        return [after - before for before, after in zip(times, times[1:], strict=False)]

    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        content: dict[str, Any] = json.loads((self.run / "result.json").read_text())
        return content


def chat(*turns: dict[str, Any], **more: object) -> dict[str, Any]:
    """A chat line as OpenAI has it."""
    return {"messages": [*turns], **more}


def json_lines(*records: object, end: str = "\n") -> bytes:
    """JSON Lines with a line end of one's choice."""
    return end.join(json.dumps(record) for record in records).encode() + end.encode()


def parquet(*rows: dict[str, Any]) -> bytes:
    """A Parquet file; what a row lacks is null."""
    out = io.BytesIO()
    names = {name for row in rows for name in row}
    rows = tuple({name: row.get(name) for name in sorted(names)} for row in rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def run_wide_search(installed: Installed, folder: Path, chain: Path) -> WideSearch:
    """Chats, tools, instructions and pairs in one file; the holdout is a spreadsheet's.

    Args:
        installed: The installation.
        folder: Folder to run in, which is empty.
        chain: The chain's file.
    """
    write_wide_search(folder, chain)
    began = time.monotonic()
    with subprocess.Popen(
        [installed.ztom, "search", "search.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=installed.environment(),
    ) as running:
        assert running.stdout is not None
        lines = [(time.monotonic() - began, line.rstrip("\n")) for line in running.stdout]
        status = running.wait()
    return WideSearch(folder, status, lines)


def write_wide_search(folder: Path, chain: Path) -> None:
    """Its configuration and its data."""
    questions = [
        {
            "prompt": f"what is {WORDS[i % 9]} {WORDS[(i * 7 + i // 9) % 9]} number {i * 37}",
            "completion": f"it is {WORDS[(i * 5) % 9]} {i}",
        }
        for i in range(8)
    ]
    forms = [chat(USER, ASSISTANT), SHAREGPT, ALPACA, chat(*TOOL_TURNS), *questions]
    image = chat({**USER, "content": [IMAGE]}, ASSISTANT)
    search = b"\xef\xbb\xbf" + json_lines(*forms, image, end="\r\n\r\n")
    (folder / "search.jsonl").write_bytes(search)
    rows = "".join(f"word {i}, and;{i * i}\r\n" for i in range(6))
    (folder / "holdout.csv").write_text(f"prompt;expected\r\n{rows}", "utf-8-sig")
    rail = [{"prompt": f"guard {i} of {i * 7}", "expected": "x"} for i in range(20)]
    (folder / "rail.parquet").write_bytes(parquet(*rail))
    content = {
        "chain": str(chain),
        "stimuli": "search.jsonl",
        "holdout": "holdout.csv",
        "error": "cross_entropy",
        "guardrails": [{"name": "rail", "stimuli": "rail.parquet", "error": "cross_entropy",
                        "max_increase": 10.0}],
        "scaling_factor_limit": 0.5,
        "budget": {"evaluations": 3},
        "inference_config": {"max_new_tokens": 4},
        "insist": True,
        "output": "run",
    }  # fmt: skip
    (folder / "search.yaml").write_text(yaml.safe_dump(content))
