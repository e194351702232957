"""What ``ztom submit`` does: a search goes to a cluster, and what it comes to comes back."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
import time
from pathlib import Path

from cluster.doctor import NodeProblem, examination, problems_of
from cluster.jobs import Job, JobState, RayJobs
from cluster.submission import FILE, Submission, pack_search
from cluster.token import use_token
from tune_search.command import FAILED, INTERRUPTED
from ztom.checkpoints.storage import open_file
from ztom.cli.console import plain_console, print_document
from ztom.errors import ConfigError, ZtomError
from ztom.io.files import write_whole
from ztom.settings import Settings, local_actor

_POLL_S = 1.0
#: Names of what is wrong with a cluster that no search runs beside.
_STOPS_A_SEARCH = ("node", "image", "place", "ledger", "shared disk")
#: What comes back of a search that was followed.
RESULTS = ("result.json", "report.html")


def submit_command(
    file: Path,
    overrides: list[str],
    *,
    cluster: str,
    ledger: str | None,
    storage: str | None,
    to: Path | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Check, submit, follow, fetch; returns the exit status.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    use_token()
    jobs = RayJobs(cluster)
    console = plain_console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="ztom-submit-") as folder:
        packed = pack_search(file, overrides, Path(folder), ledger=ledger, storage=storage)
        require_ready(jobs, packed)
        job_id = f"ztom-{_plain(packed.name)}-{secrets.token_hex(4)}"
        command = ["python", "-m", "tune_search", FILE, "--resume"]
        labels = {"ztom": "search", "search": packed.name, "output": packed.output}
        variables = {"ZTOM_ACTOR": local_actor()}
        jobs.submit(Job(job_id, command, variables, labels, folder=Path(folder)))
    says = {"job": job_id, "output": packed.output, "ledger": packed.ledger, "cluster": cluster}
    for name, value in says.items():
        console.print(f"{name:8} {value}")
    if not follow:
        if as_json:
            print_document(says)
        return 0
    try:
        state = _follow(jobs, job_id)
    except KeyboardInterrupt:
        console.print(f"it goes on; to end it: ray job stop {job_id} --address {cluster}")
        return INTERRUPTED
    if state is not JobState.SUCCEEDED:
        return INTERRUPTED if state is JobState.STOPPED else FAILED
    target = to or Path("runs") / packed.name
    for path in fetch(packed.output, target):
        console.print(f"{'fetched':8} {shlex.quote(str(path))}")
    if as_json:
        print_document({**says, "fetched": target.absolute()})
    return 0


def require_ready(jobs: RayJobs, packed: Submission) -> None:
    """See that every node of the cluster can do its part of a search.

    Raises:
        ConfigError: One cannot; says which, and why, and how many more things are wrong.
    """
    reports = examination(jobs, packed.questions)
    problems = [problem for problem in problems_of(reports) if problem.name in _STOPS_A_SEARCH]
    if problems:
        raise _refusal(problems)


def _refusal(problems: list[NodeProblem]) -> ConfigError:
    first, others = problems[0], len(problems) - 1
    node = f"node {first.node}: " if first.node else ""
    more = f" ({others} more: `ztom doctor --cluster` lists them)" if others else ""
    return ConfigError(
        "the search cannot run on this cluster", got=f"{node}{first.what}{more}", fix=first.fix
    )


def fetch(output: str, target: Path) -> list[Path]:
    """Copy what a search came to into a local folder.

    Args:
        output: Folder that the search has written to.
        target: Folder of this machine.

    Returns:
        The files that were there.
    """
    paths = []
    for name in RESULTS:
        try:
            source, file = open_file(f"{output.rstrip('/')}/{name}", settings=Settings())
        except ZtomError:
            continue  # a path that only the cluster has
        target.mkdir(parents=True, exist_ok=True)
        content = source.read(file, 0, source.size(file))
        write_whole(target / name, content.decode())
        paths.append(target / name)
    return paths


def _follow(jobs: RayJobs, job_id: str) -> JobState:
    """Print what a job prints until it ends."""
    shown = 0
    while True:
        state, _ = jobs.state(job_id)
        text = jobs.logs(job_id)
        sys.stderr.write(text[shown:])
        sys.stderr.flush()
        shown = len(text)
        if state is not JobState.RUNNING:
            return state
        time.sleep(_POLL_S)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)[:40]
