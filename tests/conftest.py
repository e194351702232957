"""Shared by all tests: an isolated cache, real data where it is, engines that are started once.

Tests of one file run in one process, and so do those of several files that share an engine or a
database server (`groups.SHARED`); what takes longest begins first, so that two run side by side.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import postgres
import pytest
import starts
from groups import FIRST, group_of
from vllm_slot import VllmSlot

pytest.register_assert_rewrite("ztom.testing")

if TYPE_CHECKING:
    from ztom.engines.protocol import Engine

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# what fixtures of a module write is not signed with the user's key
os.environ.setdefault("ZTOM_KEY_FILE", str(Path(tempfile.mkdtemp(prefix="ztom-key-"), "key")))
# Ray's workers would be nice to the other processes of the tests, which keep the cores busy
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, nor signs with the user's key."""
    monkeypatch.setenv("ZTOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ZTOM_KEY_FILE", str(tmp_path / "signing.key"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the repository; absent it skips, but fails in CI."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        message = f"no real data in {folder}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Base address of a PostgreSQL server; without its programs it skips, but fails in CI."""
    if postgres.program("initdb") is None:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with postgres.server() as base:
        yield base


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger of each kind can be made."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return postgres.new_database(request.getfixturevalue("postgresql"))


@pytest.fixture(scope="session")
def llama_chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A chain of three tiny Llamas, which nobody changes."""
    from toys import make_chain

    return make_chain(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def vllm_slot() -> Iterator[VllmSlot]:
    """The place of this process for an engine of vLLM."""
    slot = VllmSlot()
    yield slot
    slot.clear()


@pytest.fixture
def vllm_llama(vllm_slot: VllmSlot, llama_chain: list[Path]) -> Engine:
    """vLLM on `llama_chain`, with all factors zero; others use it too."""
    engine = vllm_slot.on(llama_chain)
    engine.blend((0.0, 0.0))
    return engine


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs coroutines on the one event loop that what a file of tests makes lives on."""
    with asyncio.Runner() as runner:
        yield runner.run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dear tests first; those marked ``gpu`` skip without one."""
    places = {group: place for place, group in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(group_of(item.path), len(places)))
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist need not be installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out tests by group, whatever ``--dist`` says.

    pytest-xdist's own groups are told by the ids of the tests, which pytest 9.2 no longer lets it
    write: ``--dist loadgroup`` hands out single tests there, and each process starts engines.
    """
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.partition("::")[0])

    return GroupScheduling(config, log)


def pytest_configure() -> None:
    """Count what is started."""
    starts.watch()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was started, and what of it is too much."""
    counted = starts.counted()
    listed = ", ".join(
        f"{kind} {counted[kind]} (at most {most})" for kind, most in starts.MOST.items()
    )
    terminalreporter.write_line(f"starts: {listed}")
    for excess in starts.excess(counted):
        terminalreporter.write_line(f"ERROR: {excess}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Too many starts fail the run."""
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and starts.excess(starts.counted()) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """The file of the counts goes; workers leave it to who made it."""
    if not hasattr(config, "workerinput"):
        starts.forget()
