"""The reason why an engine's own process failed, taken from what it wrote."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serve_apps.variants.child_output import ChildOutput, watched_stderr

LOG = """(EngineCore pid=7) ERROR 11-27 23:00:00 [core.py:1] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-27 23:00:00 [core.py:1] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-27 23:00:00 [core.py:1] ValueError: No model of this kind: Odd
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_cause_is_what_the_child_said_and_the_log_has_it_too(capfd) -> None:
    code = f"import sys; sys.stderr.write({LOG!r})"
    with watched_stderr() as output:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert output.root_cause() == "ValueError: No model of this kind: Odd"
    os.write(2, b"afterwards\n")
    assert set(capfd.readouterr().err.splitlines()) >= {*LOG.splitlines(), "afterwards"}


def test_a_child_may_go_on_writing_afterwards(capfd) -> None:
    code = "import sys; sys.stdin.read(); sys.stderr.write('torch.OutOfMemoryError: all gone')"
    with watched_stderr() as output:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    child.communicate(b"")
    assert child.returncode == 0
    assert output.root_cause() == "OutOfMemoryError: all gone"
    assert "all gone" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "fine", "RuntimeError: See root cause above."])
def test_where_nothing_was_said_there_is_no_cause(text: str) -> None:
    output = ChildOutput()
    output.add(text.encode())
    assert output.root_cause() is None
