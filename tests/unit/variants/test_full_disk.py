"""A disk that is full, for real: a file system of so many kibibytes."""

from __future__ import annotations

import logging
from pathlib import Path

import faults
import pytest
from toy_variant import open_toy_chain

from ztom.errors import LedgerError, StorageError, ZtomError
from ztom.evaluation.runs.cache import AnswerCache
from ztom.io.files import write_document, write_whole
from ztom.ledger import Ledger
from ztom.ledger.records import AuditEvent
from ztom.variants.manifest import verify_manifest
from ztom.variants.variant import blend_on_record
from ztom.variants.write import WriteOptions, needed_bytes

_EVENT = AuditEvent(actor="me", action="test.done", subject="test:1")


@pytest.mark.abuse(59, 104)
def test_a_variant_is_whole_or_not_there(tmp_path: Path) -> None:
    """Full at any point: among the weights, the tokenizer, the recipe, the manifest."""
    chain = open_toy_chain(tmp_path / "chain")
    factors = [0.1] * len(chain.names)
    least = needed_bytes(chain, WriteOptions()) / 2**20
    outcomes = []
    with Ledger.open(tmp_path / "ledger.db"):
        pass
    for step in range(7):
        name = f"disk-{step}"
        with faults.small_disk(tmp_path / name, mib=least + step * 12 / 1024) as disk:
            before = _rows(tmp_path)
            try:
                blend_on_record(
                    chain,
                    factors,
                    disk / "v",
                    options=WriteOptions(),
                    ledger_address=str(tmp_path / "ledger.db"),
                )
            except StorageError:
                assert list(disk.iterdir()) == [], "nothing half written remains"
                assert _rows(tmp_path) == before, "nothing is on record"
                outcomes.append(False)
            else:
                verify_manifest(disk / "v")
                assert [path.name for path in disk.iterdir()] == ["v"]
                outcomes.append(True)
    assert outcomes[0] is False
    assert outcomes[-1] is True, "the last disk is large enough"


def _rows(folder: Path) -> int:
    with Ledger.read(folder / "ledger.db") as ledger:
        return ledger.audit.check()


def test_a_file_keeps_what_it_was(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk", mib=0.1) as disk:
        report = disk / "report.html"
        write_document(report, "old")
        with pytest.raises(StorageError, match="No space left"):
            write_document(report, "x" * 2**20)
        with pytest.raises(OSError, match="No space left"):
            write_whole(disk / "other", "x" * 2**20, private=True)
        assert report.read_text() == "old"
        assert [path.name for path in disk.iterdir()] == ["report.html"]


@pytest.mark.abuse(59)
def test_a_ledger_refuses_and_goes_on(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk", mib=2) as disk, Ledger.open(disk / "l.db") as ledger:
        first = ledger.audit.append(_EVENT)
        filler = faults.fill(disk)
        with pytest.raises(LedgerError, match="full"):
            _append(ledger, 2000)  # until what the log has in reserve is used up
        assert ledger.audit.check() >= first.sequence
        filler.unlink()
        rows = ledger.audit.check()
        assert ledger.audit.append(_EVENT).sequence == rows + 1
        assert ledger.audit.check() == rows + 1


def _append(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        ledger.audit.append(_EVENT)


def test_the_answers_of_an_evaluation_are_kept_no_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache that cannot be written costs time, not the evaluation."""
    with faults.small_disk(tmp_path / "disk", mib=0.2) as disk:
        cache = AnswerCache(disk / "answers.db")
        with caplog.at_level(logging.WARNING):
            for number in range(40):
                cache.keep({f"key-{number}": "x" * 20_000})
        assert cache.find(["key-39"]) == {}
    assert caplog.records


def test_an_error_is_the_only_way_out() -> None:
    """What all of the above raise is one tree, which the commands and the server know."""
    assert issubclass(StorageError, ZtomError)
    assert issubclass(StorageError, OSError)
