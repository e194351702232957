"""The chart, for every values file and for what those leave off; what has to fail fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy_checks.tools import CLUSTER, run

CHART = CLUSTER / "helm" / "ztom"
CASES = Path(__file__).with_name("cases")
#: What no values file can know.
_GIVEN = ("gcp.project=example-project",)

Document = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A way to install the chart.

    Attributes:
        name: What it is called in findings.
        files: Values files, later ones on top.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def options(self) -> list[str]:
        """Options of helm."""
        files = [option for file in self.files for option in ("--values", str(file))]
        return [*files, *(option for value in _GIVEN for option in ("--set", value))]


def cases() -> list[Case]:
    """The values as they are, every values file, and each case of ours on the file it names."""
    made = [Case("values.yaml", ())]
    made += [Case(path.name, (path,)) for path in sorted(CHART.glob("values-*.yaml"))]
    for path in sorted(CASES.glob("*.yaml")):
        base = CHART / f"values-{path.stem.partition('--')[0]}.yaml"
        made.append(Case(path.name, (base, path)))
    return made


@cache
def render(case: Case) -> tuple[Document, ...]:
    """The documents that helm makes of the chart.

    Raises:
        ValueError: It makes none; the message is its own.
    """
    done = run("helm", "template", "ztom", CHART, "--namespace", "ztom", *case.options)
    if done.status:
        raise ValueError(f"{case.name}: {done.problem}")
    return tuple(document for document in yaml.safe_load_all(done.out) if document)


def documents() -> Iterator[tuple[str, Document]]:
    """Every document of every case, with a name for findings."""
    for case in cases():
        for document in render(case):
            yield f"{case.name}: {document['kind']} {document['metadata']['name']}", document


def check_lint() -> list[str]:
    """`helm lint --strict` says nothing of any case."""
    findings = []
    for case in cases():
        done = run("helm", "lint", "--strict", "--quiet", CHART, *case.options)
        if done.status:
            findings.append(f"{case.name}: {done.problem}")
    return findings


def check_rendered() -> list[str]:
    """Every case makes documents, each with a name once a kind."""
    findings = []
    for case in cases():
        try:
            names = [(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in render(case)]
        except ValueError as error:
            findings.append(str(error))
            continue
        findings += [f"{case.name}: {name} twice" for name in set(names) if names.count(name) > 1]
    return findings


#: Values that the chart has to refuse, and a word of its reason.
REFUSED = (
    ("drain.seconds=91", "does not fit"),
    ("drain.gracePeriodSeconds=89", "does not fit"),
    ("drain.lastAnswersSeconds=2", "last answers"),
    ("service.settings.drain_s=56", "drain_s"),
    ("image.cpu.tag=latest", "latest"),
    ("image.cpu.digest=sha256:0", "digest"),
    ("cloud=gke,gcp.project=", "gcp.project"),
    ("gcs.faultTolerance=redis", "redisAddress"),
    ("secrets.source=values", "secrets.data"),
    ("job.enabled=true", "job.search"),
    ("job.enabled=true,job.search.name=a", "job.search.output"),
    ("job.enabled=true,job.search.output=/data/a,job.ownCluster=false", "cluster.enabled"),
    ("pools.cpu.kind=gpu", "gpus is 0"),
    ("storage.cacheGi=13", "evicted"),
    ("pools.cpu.min=3", "more than max"),
    ("gateway.enabled=true,service.enabled=false", "service.enabled"),
    ("historyServer.enabled=true", "collector.image"),
    ("servise.enabled=true", "servise"),
    ("service.settings.ledger=sqlite", "settings"),
)


def check_refused() -> list[str]:
    """What cannot work is refused before it is installed, with a reason."""
    findings = []
    for values, word in REFUSED:
        done = run("helm", "template", "ztom", CHART, "--set", values)
        if done.status == 0:
            findings.append(f"--set {values} is taken")
        elif word not in done.problem:
            findings.append(f"--set {values}: {word!r} is not in {done.problem}")
    return findings


def specs_of_clusters(document: Document) -> list[Document]:
    """Specs of the clusters that a document of ray.io makes."""
    spec = document.get("spec", {})
    found = {
        "RayCluster": [spec],
        "RayService": [spec.get("rayClusterConfig")],
        "RayJob": [spec.get("rayClusterSpec")],
        "RayCronJob": [spec.get("jobTemplate", {}).get("rayClusterSpec")],
    }.get(document["kind"], [])
    return [cluster for cluster in found if cluster]
