"""One cluster of three machines for all tests of the folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from three_node_cluster import Cluster, require_services, three_node_cluster
from three_nodes import require_namespaces


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Ray on three machines, PostgreSQL and a bucket; many use it, in the order of the file."""
    require_namespaces()
    require_services()
    # outside of pytest's own folders, which other accounts may not enter
    folder = Path(tempfile.mkdtemp(prefix="ztom-nodes-"))
    folder.chmod(0o755)
    try:
        with three_node_cluster(folder) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)
