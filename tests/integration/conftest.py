"""What several files of tests with real engines start from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    """What replicas set for their process is undone, and Ray's folder has a short name.

    Yields:
        Where Ray keeps its logs; its socket names bear no long paths.
    """
    folder = Path(tempfile.mkdtemp(prefix="ztom-"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in os.environ.items():
            patch.setenv(name, value)
        for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all searches that run here (`groups.SHARED`)."""
    from tune_search.session import ray_for_search  # Ray, which `starts` has to see coming

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")  # W&B writes in processes of this Ray
        with ray_for_search(1):
            yield
