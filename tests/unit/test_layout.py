"""Where tests stand, and how long their files are."""

from __future__ import annotations

from groups import FIRST, SHARED, TESTS

#: Lines; a file that grows beyond it has two topics.
MOST_LINES = 500


def test_files_of_tests_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert len(lengths) > 100
    assert {str(path): lines for path, lines in lengths.items() if lines >= MOST_LINES} == {}


def test_no_two_files_of_tests_share_a_name() -> None:
    """Pytest imports them by their bare names."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_every_shared_place_exists() -> None:
    named = {*SHARED, *(place for place in FIRST if "/" in place)}
    assert [place for place in named if not (TESTS / place).exists()] == []
