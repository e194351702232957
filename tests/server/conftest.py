"""What several files of unit tests start from; some have a server of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_helpers import Server
from variant_folders import chief_of, reading_variants

from ztom.client import Client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with reading_variants(tmp_path) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[Client]:
    with chief_of(server) as client:
        yield client
