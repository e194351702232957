"""Policies for what the chart makes: those of `checkov`, less the exceptions that are explained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from deploy_checks.charts import Document, cases, render, specs_of_clusters
from deploy_checks.machines import unexplained
from deploy_checks.tools import CHECKOV, CLUSTER, run

_CONFIG = CLUSTER / "helm" / ".checkov.yaml"
_NAMESPACE = "ztom"


def check_pods() -> list[str]:
    """Pods of Ray, which are inside resources that checkov does not know, and all other kinds."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            made = [document for whole in render(case) for document in plain(whole)]
            path = Path(folder) / f"{case.name}.yaml"
            path.write_text(yaml.safe_dump_all(made), encoding="utf-8")
        done = run(
            "checkov",
            *("--directory", folder, "--config-file", _CONFIG, "--skip-download"),
            environment=CHECKOV,
        )
    return [*unexplained(_CONFIG), *([done.problem] if done.status else [])]


def plain(document: Document) -> Iterator[Document]:
    """A document in the chart's namespace; of a cluster, the pods that it makes."""
    clusters = specs_of_clusters(document)
    for number, spec in enumerate(clusters):
        templates = {"head": spec["headGroupSpec"]["template"]}
        templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
        for name, template in templates.items():
            kind = document["kind"].lower()
            metadata = {**template["metadata"], "name": f"{kind}-{number}-{name}"}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**metadata, "namespace": _NAMESPACE},
                "spec": template["spec"],
            }
    if not clusters:
        yield {**document, "metadata": {**document["metadata"], "namespace": _NAMESPACE}}
