"""What users have: the installed wheel, and a server that was started from it, on its defaults.

All of ``tests/outside`` runs in one process (`groups.SHARED`), so that there is one of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import Installed, build_wheel, install
from saved_models import save_foreign_chain
from server_helpers import PASSWORD
from up import Up
from wide_search import WideSearch, run_wide_search


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of these sources."""
    return build_wheel(tmp_path_factory.mktemp("wheel") / "wheel")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of these sources, installed."""
    return install(wheel, tmp_path_factory.mktemp("installed") / "environment")


@pytest.fixture(scope="session")
def outside(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """``ztom up`` of the installed wheel, on the engine that it has by default; many use it."""
    home = tmp_path_factory.mktemp("outside")
    cors = 'cors_origins=["https://app.example.org"]'
    server = Up(home, cors, environment=installed.environment(), command=installed.ztom)
    server.roots.mkdir()
    account = ["--data", str(server.data), "--password-stdin"]
    server.ztom("admin", "create", "root", "root@example.org", *account, input=PASSWORD + "\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def foreign_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a chain that several programs wrote, and whose vocabulary has grown."""
    return save_foreign_chain(tmp_path_factory.mktemp("foreign-chain"))


@pytest.fixture(scope="session")
def wide_search(
    installed: Installed, foreign_chain: Path, tmp_path_factory: pytest.TempPathFactory
) -> WideSearch:
    """A search of the installed command on the default engine; many look at it."""
    return run_wide_search(installed, tmp_path_factory.mktemp("wide-search"), foreign_chain)
