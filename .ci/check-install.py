"""Install the wheel as users do, by the lines of ``ztom gate --ci``, and see that it works.

In a fresh environment, with the pip and the package index of this machine: resolving, downloading
and unpacking everything takes minutes, so that the tests do not do it. Where pip finds only builds
of torch for CUDA, point PIP_EXTRA_INDEX_URL at PyTorch's index of builds for CPUs, as for
``make setup``. Ends with 1 where a step does not do what it should.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import requests  # noqa: E402  # after the path of the tests' helpers
import yaml  # noqa: E402
from gate_helpers import right  # noqa: E402
from gate_repository import N, make_locked, make_results  # noqa: E402
from installed import build_wheel  # noqa: E402
from toy_variant import write_toy_variant  # noqa: E402

#: Seconds that a step, or the start of an endpoint, may take on a slow disk and network.
LIMIT_S = 600.0


def main() -> int:
    """Run the job step by step; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="zi") as name:
        folder = Path(name)
        wheel = build_wheel(folder / "wheel")
        environment = make_environment(folder / "environment", f"{wheel}[cpu]")
        repository = make_repository(folder / "repository")
        *install, check, gate = workflow_steps(repository)
        for step in (*install, check, gate):
            run(step, repository, environment)
        shutil.rmtree(repository / "candidate")
        make_results(repository, "candidate", right(N, wrong=range(30)))
        run(gate, repository, environment, status=1)
        serve(write_toy_variant(folder / "variant"), environment)
    print("the wheel installs by the workflow's lines, gates and serves")
    return 0


def make_environment(folder: Path, package: str) -> dict[str, str]:
    """An environment with nothing in it but pip; returns the variables of its job."""
    venv.create(folder, with_pip=True)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    left_out = ("GITHUB_", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    # pip would compile on one core what is imported once
    return {**kept, "PATH": path, "ZTOM": package, "PIP_NO_COMPILE": "1", "PIP_QUIET": "2"}


def make_repository(folder: Path) -> Path:
    """A repository with a locked suite, results of two models on it, and the workflow."""
    folder.mkdir()
    make_locked(folder)
    for who in ("champion", "candidate"):
        make_results(folder, who, right(N))
    command = [sys.executable, "-m", "ztom", "gate", "--ci", "github"]
    command += ["--candidate-run", "candidate", "--champion-run", "champion"]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder


def workflow_steps(repository: Path) -> list[str]:
    """The commands of the job, in order."""
    text = (repository / ".github" / "workflows" / "ztom-gate.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]
    return [step["run"] for step in steps if "run" in step]


def run(step: str, folder: Path, environment: dict[str, str], *, status: int = 0) -> None:
    """A step as GitHub runs it, which has to end with a status.

    Raises:
        SystemExit: It ended with another.
    """
    started = time.perf_counter()
    done = subprocess.run(
        ["bash", "-e", "-c", step], cwd=folder, env=environment, timeout=LIMIT_S, check=False
    )
    print(f"{time.perf_counter() - started:.0f} s: {step.strip()}", flush=True)
    if done.returncode != status:
        raise SystemExit(f"it ended with {done.returncode}, and {status} was expected")


def serve(variant: Path, environment: dict[str, str]) -> None:
    """Serve a variant with what was installed, and ask it once.

    Raises:
        SystemExit: It does not answer.
    """
    started = time.perf_counter()
    options = ["--port", "0", "--max-model-len", "64", "--json"]
    with process(["ztom", "serve", str(variant), *options], environment) as server:
        served = read_document(server)
        body = {"model": served["models"][0], "prompt": "Once", "max_tokens": 4}
        answer = requests.post(f"{served['base_url']}/completions", json=body, timeout=60)
        if answer.status_code != 200 or answer.json()["usage"]["completion_tokens"] < 1:
            raise SystemExit(f"the endpoint answered {answer.status_code}: {answer.text}")
    print(f"{time.perf_counter() - started:.0f} s: ztom serve", flush=True)


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command that is interrupted at the end, as by Ctrl-C; killed after LIMIT_S seconds."""
    variables = {**environment, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        ["timeout", "--signal=INT", "--kill-after=30", str(int(LIMIT_S)), *command],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=120)


def read_document(running: subprocess.Popen[str]) -> Any:
    """The JSON document that a command prints once it is ready.

    Raises:
        SystemExit: It ended before.
    """
    text = ""
    for line in running.stdout or ():
        text += line
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    raise SystemExit(f"ztom serve ended before it served, after {text!r}")


if __name__ == "__main__":
    sys.exit(main())
