"""Folders of suites, written by tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SETTINGS = {
    "name": "animals",
    "version": "1.0.0",
    "layer": "task",
    "metric": "accuracy",
    "owner": "zoo",
    "labels": ["cat", "dog"],
}
ITEMS: list[dict[str, Any]] = [
    {"id": "a", "input": "It purrs.", "target": "cat"},
    {"id": "b", "input": "It barks.", "target": "dog", "slice": "loud", "must_pass": True},
    {"id": "c", "input": "It sleeps.", "target": "cat", "source_ts": "2025-05-01T10:00:00Z"},
]


def write(folder: Path, items: list[dict[str, Any]] | None = None, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    (folder / "suite.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    lines = [json.dumps(item) for item in (ITEMS if items is None else items)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
