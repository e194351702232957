"""The GPU benchmark's own logic, on a CPU: its rows, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.gpu import SMALL, measure, measure_kernel

CPU = torch.device("cpu")


def test_the_kernel_is_measured_by_dtype() -> None:
    rows = measure_kernel(CPU, SMALL)
    assert rows.keys() == {"bfloat16", "float32"}
    for row in rows.values():
        assert row.keys() == {"copy_gb_s", "steps_gb_s"}  # without a GPU there is no kernel
        assert min(row.values()) > 0


def test_what_would_begin_too_late_is_left_out(tmp_path: Path) -> None:
    document = measure(SMALL, CPU, limit_s=-1.0, folder=tmp_path)
    assert document["left_out"] == ["kernel", "chain"]
