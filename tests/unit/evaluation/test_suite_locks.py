"""Locks of suites: what is pinned, and which changes need a higher version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suite_folders import ITEMS, write

from ztom.errors import EvaluationError
from ztom.evaluation.suites.digests import canonical, item_digest, settings_digest
from ztom.evaluation.suites.lock import compare, load_locked, lock_changes, lock_of, lock_suite
from ztom.evaluation.suites.read import load_suite

# --- locks --------------------------------------------------------------------------------------


def test_a_locked_suite_is_what_its_lock_says(tmp_path: Path) -> None:
    lock = lock_suite(write(tmp_path))
    assert load_locked(tmp_path).digest == lock.digest
    assert not lock_changes(tmp_path).any
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "items.jsonl",
        "suite.lock",
        "suite.yaml",
    ]
    before = (tmp_path / "suite.lock").stat().st_mtime_ns
    assert lock_suite(tmp_path) == lock
    assert (tmp_path / "suite.lock").stat().st_mtime_ns == before


def test_a_suite_without_a_lock_does_not_count_as_locked(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"suite\.lock does not exist"):
        load_locked(write(tmp_path))


def test_changed_items_need_a_higher_version(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    locked = (tmp_path / "suite.lock").read_bytes()
    items = [{**ITEMS[0], "target": "dog"}, ITEMS[2], {**ITEMS[1], "id": "d"}]
    write(tmp_path, items)
    changes = lock_changes(tmp_path)
    assert (changes.changed, changes.added, changes.removed) == (("a",), ("d",), ("b",))
    assert not changes.settings
    assert "Only a version above 1.0.0" in changes.advice()
    for refused in (load_locked, lock_suite):
        with pytest.raises(EvaluationError, match=r"1 added: d; 1 removed: b; 1 changed: a"):
            refused(tmp_path)
    for version in ("0.9.9", "1.0.0"):
        write(tmp_path, items, version=version)
        with pytest.raises(EvaluationError, match="not what its lock says"):
            lock_suite(tmp_path)
    assert (tmp_path / "suite.lock").read_bytes() == locked
    write(tmp_path, items, version="1.0.1")
    assert "`ztom suite lock` is missing" in lock_changes(tmp_path).advice()
    lock_suite(tmp_path)
    assert load_locked(tmp_path).config.version == "1.0.1"


def test_changed_settings_and_order_need_a_higher_version(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    assert list(lock_changes(write(tmp_path, floor=0.5)).lines()) == ["settings changed"]
    reordered = lock_changes(write(tmp_path, [ITEMS[1], ITEMS[0], ITEMS[2]]))
    assert list(reordered.lines()) == ["items in another order"]
    for folder in (write(tmp_path, floor=0.5), write(tmp_path, [*reversed(ITEMS)])):
        with pytest.raises(EvaluationError):
            lock_suite(folder)


def test_versions_are_numbers_not_words(tmp_path: Path) -> None:
    lock_suite(write(tmp_path, version="1.9.0"))
    write(tmp_path, version="1.10.0", floor=0.1)
    assert lock_suite(tmp_path).version == "1.10.0"
    write(tmp_path, version="1.9.9")
    with pytest.raises(EvaluationError):
        lock_suite(tmp_path)
    write(tmp_path, version=f"{'9' * 5000}.0.0")
    assert lock_changes(tmp_path).raised


def test_a_lower_version_alone_is_no_lock(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    with pytest.raises(EvaluationError, match="Only the version changed, and 0.1.0 is no higher"):
        lock_suite(write(tmp_path, version="0.1.0"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace('"version": "1.0.0"', '"version": "1.0.1"'), "hold together"),
        (lambda text: text.replace('"a":', '"z":'), "hold together"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "not a suite's lock"),
        (lambda text: "<<<<<<< ours\n" + text, "not JSON"),
        (lambda text: text[:100], "not JSON"),
        (lambda _: "[]", "not a suite's lock"),
        (lambda _: "", "the file is empty"),
    ],
)
def test_a_lock_that_was_edited_is_refused(
    tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    lock_suite(write(tmp_path))
    file = tmp_path / "suite.lock"
    file.write_text(edit(file.read_text()))
    for reader in (load_locked, lock_changes, lock_suite):
        with pytest.raises(EvaluationError, match=message):
            reader(tmp_path)


def test_a_lock_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_suite(write(tmp_path))
    before = (tmp_path / "suite.lock").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    write(tmp_path, version="2.0.0")
    with pytest.raises(OSError, match="cannot be written"):
        lock_suite(tmp_path)
    assert (tmp_path / "suite.lock").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


# --- code ---------------------------------------------------------------------------------------

CODE = "def score(*lists):\n    return [1.0 for _ in lists[0]]\n"


def own(folder: Path, function: str = "check:score", **settings: Any) -> Path:
    return write(folder, metric="user", labels=None, function=function, **settings)


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("check:score", "check.py"),
        ("check:score", "check/__init__.py"),
        ("parts.check:score", "parts/check.py"),
    ],
)
def test_code_beside_the_suite_is_locked(tmp_path: Path, function: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(CODE)
    locked = lock_suite(own(tmp_path, function))
    assert locked.code == hashlib.sha256(CODE.encode()).hexdigest()
    assert load_locked(tmp_path).digest == locked.digest
    (tmp_path / file).write_text(CODE + "# another\n")
    assert load_suite(tmp_path).digest != locked.digest
    assert list(lock_changes(tmp_path).lines()) == ["the function's code changed"]
    for refused in (load_locked, lock_suite):
        with pytest.raises(EvaluationError, match="the function's code changed"):
            refused(tmp_path)
    own(tmp_path, function, version="2.0.0")
    assert lock_suite(tmp_path).code != locked.code
    load_locked(tmp_path)


def test_a_package_comes_before_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "__init__.py").write_text(CODE + "# package\n")
    before = load_suite(own(tmp_path)).code
    (tmp_path / "check.py").write_text("")
    assert load_suite(tmp_path).code == before
    assert before == hashlib.sha256((CODE + "# package\n").encode()).hexdigest()


def test_code_from_elsewhere_is_in_no_lock(tmp_path: Path) -> None:
    (tmp_path / "unrelated.py").write_text(CODE)
    locked = lock_suite(own(tmp_path))
    assert locked.code is None
    assert "code" not in (tmp_path / "suite.lock").read_text()
    (tmp_path / "check.py").write_text(CODE)
    with pytest.raises(EvaluationError, match="the function's code changed"):
        load_locked(tmp_path)


def test_suites_without_code_keep_their_digests(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    suite = load_suite(write(tmp_path))
    assert suite.code is None
    items = {item.id: item_digest(item) for item in suite.items}
    whole = {
        "version": suite.config.version,
        "settings": settings_digest(suite.config),
        "items": list(items.items()),
    }
    assert suite.digest == hashlib.sha256(canonical(whole)).hexdigest()


def test_a_lock_whose_code_was_edited_is_refused(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    locked = lock_suite(own(tmp_path))
    file = tmp_path / "suite.lock"
    file.write_text(file.read_text().replace(str(locked.code), "0" * 64))
    with pytest.raises(EvaluationError, match="hold together"):
        load_locked(tmp_path)


def test_code_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "check.py").write_text(CODE)
    own(tmp_path)
    read_bytes = Path.read_bytes

    def broken(self: Path) -> bytes:
        if self.name == "check.py":
            raise OSError(5, "Input/output error")
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(EvaluationError, match=r"check\.py cannot be read: Input/output error"):
        load_suite(tmp_path)


def test_long_lists_of_changes_are_cut(tmp_path: Path) -> None:
    many = [{**ITEMS[0], "id": f"n{i}"} for i in range(50)]
    old, new = load_suite(write(tmp_path / "a")), load_suite(write(tmp_path / "b", many))
    lines = list(compare(lock_of(old), lock_of(new)).lines())
    assert lines[0].startswith("50 added: n0, n1")
    assert lines[0].endswith("and 30 more")
