"""What stands still while an engine is imported, and what goes on afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ztom.engines.collector import collection_paused, import_paused

MODULE = "import gc\nIS_ENABLED = gc.isenabled()\n"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()
    gc.unfreeze()


def test_it_goes_on_as_before() -> None:
    with collection_paused():
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collection_paused():
        _ = 1 / 0
    assert gc.isenabled()
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_what_an_import_made_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dear_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dear_module", raising=False)
    gc.unfreeze()
    import_paused("dear_module")
    assert sys.modules["dear_module"].IS_ENABLED is False
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    import_paused("dear_module")  # nothing is left to do
    assert gc.get_freeze_count() == 0
    monkeypatch.delitem(sys.modules, "dear_module")
