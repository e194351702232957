"""What several files of tests with real engines start from."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from groups import group_of

#: What `local_ray` opened.
_searches = contextlib.ExitStack()


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


@pytest.fixture(scope="module")
def local_ray() -> None:
    """One local Ray for all searches that run here; it ends with the last file of their group."""
    import ray

    from tune_search.session import ray_for_search  # Ray, which `starts` has to see coming

    if not ray.is_initialized():
        patch = _searches.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("WANDB_MODE", "offline")  # W&B writes in processes of this Ray
        _searches.enter_context(ray_for_search(1))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the Ray of the searches: other files have their own in the same process."""
    if nextitem is None or group_of(nextitem.path) != group_of(item.path):
        _searches.close()
