"""Calls in processes that may be killed, and the JSON that is parsed there."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from ztom.errors import ArchiveError, CheckpointError
from ztom.io.bounded import BoundedPool, OverLimitError
from ztom.io.json import (
    ASIDE_BYTES,
    MAX_CONTAINERS,
    DuplicateKeyError,
    check_depth,
    parse_json,
    read_json_object,
)

HERE = "test_bounded_tasks"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / f"{HERE}.py").write_text(
        "import os, time\n"
        "from ztom.errors import ArchiveError\n"
        "def add(a, b): return a + b\n"
        "def spin(): \n    while True: pass\n"
        "def swell(): return bytearray(2**40)\n"
        "def sleep(): time.sleep(60)\n"
        "def end(): os.kill(os.getpid(), 9)\n"
        "def refuse(): raise ArchiveError('no tar', got='x', expected='y')\n"
        "def fail(): raise KeyError('k')\n"
        "def pid(): return os.getpid()\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = BoundedPool(processes=1, memory_bytes=2**30)
    yield pool
    pool.close()


def test_a_call_has_its_result_and_the_process_stays(pool: BoundedPool) -> None:
    assert pool.call(f"{HERE}:add", [1], [2.5, None], cpu_s=1) == [1, 2.5, None]
    first = pool.call(f"{HERE}:pid", cpu_s=1)
    began = time.perf_counter()
    pids = {pool.call(f"{HERE}:pid", cpu_s=1) for _ in range(100)}
    assert pids == {first}
    assert (time.perf_counter() - began) / 100 < 0.01, "milliseconds, not a start each"


@pytest.mark.parametrize(
    ("task", "limits", "reason"),
    [
        ("spin", {"cpu_s": 0.1}, "more computing"),
        ("swell", {"cpu_s": 5.0}, "more memory"),
        ("sleep", {"cpu_s": 5.0, "wall_s": 0.2}, "deadline"),
        ("end", {"cpu_s": 5.0}, "SIGKILL"),
        ("fail", {"cpu_s": 5.0}, "KeyError"),
    ],
)
def test_a_call_that_needs_too_much_ends_and_the_next_is_answered(
    pool: BoundedPool, task: str, limits: dict[str, float], reason: str
) -> None:
    with pytest.raises(OverLimitError, match=reason):
        pool.call(f"{HERE}:{task}", **limits)
    assert pool.call(f"{HERE}:add", 1, 2, cpu_s=1) == 3


def test_an_error_of_ours_comes_back_as_itself(pool: BoundedPool) -> None:
    with pytest.raises(ArchiveError, match="no tar: got x, expected y"):
        pool.call(f"{HERE}:refuse", cpu_s=1)


def test_an_event_loop_goes_on_while_a_call_spins(pool: BoundedPool) -> None:
    async def run() -> float:
        spinning = asyncio.create_task(pool.call_async(f"{HERE}:spin", cpu_s=0.3))
        longest, last = 0.0, time.perf_counter()
        while not spinning.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        with pytest.raises(OverLimitError):
            await spinning
        return longest

    assert asyncio.run(run()) < 1.0


def test_what_is_long_is_the_same_as_what_is_short() -> None:
    value = {"weight_map": {f"layer.{i}": "model.safetensors" for i in range(20_000)}, "n": [1.5]}
    raw = json.dumps(value).encode()
    assert len(raw) > ASIDE_BYTES
    assert parse_json(raw) == value
    twice = b'{"a": 1, "a": 2, "pad": "' + b"x" * ASIDE_BYTES + b'"}'
    with pytest.raises(DuplicateKeyError):
        parse_json(twice)
    with pytest.raises(ValueError, match="Expecting"):
        parse_json(b"[" + b" " * ASIDE_BYTES)
    with pytest.raises(ValueError, match=r"1\.5 is not an integer"):
        parse_json(raw, integers_only=True)


def test_a_bomb_is_refused_before_it_is_parsed() -> None:
    bomb = b'{"a": [' + b"[]," * (16 * 2**20) + b"[]]}"
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=rf"at most {MAX_CONTAINERS} are taken"):
        read_json_object(bomb, what="config.json", limit=64 * 2**20)
    assert time.perf_counter() - began < 3.0
    numbers = b"[" + b"1," * 5_000_000 + b"1]"
    with pytest.raises(ValueError, match="5000002 values"):
        parse_json(numbers)


@pytest.mark.parametrize("depth", [101, 900, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(b"[" * depth + b"]" * depth)
    assert parse_json(b"[" * 100 + b"]" * 100) is not None


def test_depth_is_counted_through_objects_too() -> None:
    value: object = 1
    for _ in range(101):
        value = {"a": value}
    with pytest.raises(ValueError, match="nested too deeply"):
        check_depth(value)
