"""What the operating system refuses, in sentences, and looking before it has to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ztom.errors import ConfigError, StorageError
from ztom.io import disk
from ztom.io.disk import disk_errors, require_place, require_room, require_writable


def test_a_refusal_is_a_sentence_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"/a/b: no space left on device\. Free some space"):  # noqa: SIM117
        with disk_errors(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device", "/a/b")


def test_errors_of_ours_and_faults_pass(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine"), disk_errors(tmp_path):
        raise ConfigError("mine")
    with pytest.raises(KeyError), disk_errors(tmp_path):
        raise KeyError("a fault")


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder", what="the output")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"--out cannot be written: .*not a directory"):
        require_writable(tmp_path / "file" / "folder", what="--out")


def test_a_folder_to_be_is_looked_at_without_being_made(tmp_path: Path) -> None:
    require_place(tmp_path / "new" / "folder", what="--data")
    assert not (tmp_path / "new").exists(), "who makes it says who may read it"
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"--data cannot be written: .*/file: not a directory"):
        require_place(tmp_path / "file" / "folder", what="--data")


def test_room_is_looked_for_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2**30

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage)
    require_room(tmp_path / "not" / "yet", 2**30, what="the variant")
    with pytest.raises(StorageError) as refusal:
        require_room(tmp_path / "v", 2**30 + 2**28, what="the variant")
    assert str(refusal.value) == (
        f"there is not enough space for the variant in {tmp_path / 'v'}: got 1.00 GiB free, "
        "expected at least 1.25 GiB. Free some, or write to another disk."
    )
