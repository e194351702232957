"""What ``ztom doctor --cluster`` does: have every node of a cluster looked at, and compare."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cluster.doctor import NodeProblem, examination, problems_of
from cluster.examination import NodeQuestions, NodeReport
from cluster.jobs import RayJobs
from cluster.token import use_token
from ztom.cli.console import plain_console, print_document

#: The exit status where something is wrong.
WRONG = 1


def cluster_doctor_command(
    cluster: str, *, places: list[str], ledger: str | None, shared: str | None, as_json: bool
) -> int:
    """Look at every node and say what is wrong; returns the exit status.

    Args:
        cluster: Address of the cluster's dashboard.
        places: Checkpoints that every node has to read.
        ledger: Database that every node has to reach; None for none.
        shared: Folder that all nodes have to share; None for none.
        as_json: Whether to print one document.

    Raises:
        EngineError: The cluster does not answer.
    """
    use_token()
    questions = NodeQuestions(places=tuple(places), ledger=ledger, shared=shared)
    reports = examination(RayJobs(cluster), questions)
    problems = problems_of(reports)
    if as_json:
        print_document({"nodes": reports, "problems": problems})
    else:
        _show(reports, problems)
    return WRONG if problems else 0


def _show(reports: Sequence[NodeReport], problems: Sequence[NodeProblem]) -> None:
    table = Table("node", "name", "role", "GPUs", "clock", "ztom", "ray", box=None)
    for report in reports:
        table.add_row(
            report.address,
            report.name,
            "head" if report.head else "worker",
            f"{report.ray_gpus:g}",
            f"{report.clock_s:+.2f} s",
            report.versions.get("ztom", "none"),
            report.versions.get("ray", "none"),
        )
    console = plain_console()
    console.print(table)
    for problem in problems:
        where = f"{problem.node}: " if problem.node else ""
        console.print(f"{where}{problem.what}. {problem.fix}")
    if not problems:
        console.print(f"OK: {len(reports)} nodes, all alike")
