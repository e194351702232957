"""Files and folders that are their owner's alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ztom.io.private import is_private, open_private, private_file, private_folder


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = private_folder(tmp_path / "a" / "b")
        with open_private(folder / "file") as file:
            file.write("x")
    finally:
        os.umask(before)
    for path in (tmp_path / "a", folder, folder / "file"):
        assert is_private(path), path


def test_what_was_there_is_closed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "file").chmod(0o664)
    (tmp_path / "folder").mkdir(mode=0o755)
    private_file(tmp_path / "file")
    private_folder(tmp_path / "folder")
    assert (tmp_path / "file").read_text() == "kept"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert not is_private(Path("/")), "what is above is left alone"


def test_everybodys_folder_is_left_alone_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    with caplog.at_level(logging.WARNING):
        private_folder(shared)
    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert "is open to others (mode 1777" in caplog.text
