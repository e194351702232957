"""What a local Ray reads from the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cluster.environment import environment, keep_on_loopback, worker_environment

NAME = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def test_a_local_ray_stays_local_unless_somebody_wants_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(NAME, raising=False)
    keep_on_loopback()
    assert os.environ[NAME] == "0"
    monkeypatch.setenv(NAME, "1")
    keep_on_loopback()
    assert os.environ[NAME] == "1"
    monkeypatch.delenv(NAME)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    keep_on_loopback()
    assert NAME not in os.environ


@pytest.mark.parametrize("package", ["cluster", "tune_search", "serve_apps"])
def test_a_package_decides_where_a_local_ray_listens_before_it_imports_it(package: str) -> None:
    program = f"import os, sys, {package}; print(os.environ['{NAME}'], 'ray' in sys.modules)"
    clean = {k: v for k, v in os.environ.items() if k not in (NAME, "RAY_ADDRESS")}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["0", "False"]


def test_where_a_local_ray_listens_is_decided_before_its_import() -> None:
    program = (
        "import cluster.local; from ray._private.ray_constants import ENABLE_RAY_CLUSTER; "
        "print(ENABLE_RAY_CLUSTER)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in (NAME, "RAY_ADDRESS")}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_what_may_be_imported_before_the_environment_is_set_leaves_ray_alone() -> None:
    modules = "cluster.environment, cluster.jobs, cluster.ports, cluster.serve, cluster.shutdown"
    program = f"import sys, {modules}; print('ray' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZTOM_TEST_SET", "before")
    monkeypatch.delenv("ZTOM_TEST_UNSET", raising=False)

    def fail() -> None:
        with environment({"ZTOM_TEST_SET": "x", "ZTOM_TEST_UNSET": "y"}):
            assert (os.environ["ZTOM_TEST_SET"], os.environ["ZTOM_TEST_UNSET"]) == ("x", "y")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.environ["ZTOM_TEST_SET"] == "before"
    assert "ZTOM_TEST_UNSET" not in os.environ


def test_workers_import_what_the_driver_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/somewhere"])
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    assert worker_environment() == {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), "/somewhere"]),
    }
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert worker_environment()["RAY_USAGE_STATS_ENABLED"] == "1"
