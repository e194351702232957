"""What ends a command early: one sentence and a status, and no traceback for what people do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
import yaml
from command_line import ztom
from toys import make_plain_chain

from ztom.cli.failures import report
from ztom.errors import ConfigError, EngineTimeoutError

ROOT = Path(__file__).resolve().parents[3]


class SafetensorError(Exception):
    """Is called like the one of safetensors, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("it is wrong", got="x"), "ConfigError: it is wrong: got x"),
        (EngineTimeoutError("no progress"), "EngineTimeoutError: no progress"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/out/a"),
            "StorageError: /out/a: no space left on device. Free some space, or write to another "
            "disk; nothing that is half written is used.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            "StorageError: /root/x: permission denied. Give this user the rights to it, or name "
            "another place.",
        ),
        (OSError("it broke"), "StorageError: the system: it broke"),
        (
            SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
            "StorageError: a file: weights could not be read or written: Error while "
            "serializing: I/O error: File too large (os error 27). Free some space",
        ),
        (MemoryError(), "StorageError: there is not enough memory. End something else"),
        (typer.Abort(), "ConfigError: the input ended before everything was answered"),
    ],
)
def test_what_a_person_or_a_machine_did_is_a_sentence(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_fault_of_ours_shows_its_traceback_and_is_an_error_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(ZeroDivisionError("ours")) == 3
    printed = capsys.readouterr().err
    assert "this is a fault of Z-TOM, not of what you typed" in printed
    assert "ZeroDivisionError: ours" in printed


def test_an_interruption_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ztom.cli.actions.suites.examples_command", interrupt)
    done = ztom("suite", "examples")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def limited(limit_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return limit


def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes fail as a full disk does; safetensors says it in its own way."""
    states = [{"w": torch.full((1024, 1024), float(i))} for i in range(2)]
    make_plain_chain(tmp_path, states=states)
    chain = tmp_path / "chain.yaml"
    chain.write_text(yaml.safe_dump({"checkpoints": ["00", "01"]}))
    done = subprocess.run(
        [sys.executable, "-m", "ztom", "blend", chain, "--factors", "0.1", "--output", "v"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(2**21),  # above the ledger's size, below the weights'
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "StorageError: " in done.stderr
    assert "weights could not be read or written" in done.stderr
    assert not (tmp_path / "v").exists()


def test_nobody_who_reads_is_no_error() -> None:
    """As ``ztom suite examples | head -0``: the status is the one that shells give to it."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ztom", "suite", "examples"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
