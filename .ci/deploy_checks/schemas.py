"""Documents against the schemas of their kinds, as the API server takes them.

The four kinds of ray.io against KubeRay's own definitions, by a program of the tools' environment
(`custom_resources`, which needs its CEL); built-in kinds by kubernetes-validate, strictly; other
kinds by the list of the fields that we use, as their definitions are nowhere to be had here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from deploy_checks.charts import Document, documents
from deploy_checks.tools import ROOT, absent, run

KUBERNETES = "1.34"
_RAY = "ray.io/"
#: Where KubeRay's definitions are: a folder of crd-*.yaml.
DEFINITIONS = "ZTOM_KUBERAY_CRDS"

#: Fields of other kinds' specs that the chart uses; a dot is a level, [] an item of a list.
#: From the definitions of Gateway API 1.2, GKE, Kueue 0.14, Prometheus operator 0.80 and External
#: Secrets 0.16.
USED = {
    "gateway.networking.k8s.io/v1 Gateway": """
        gatewayClassName listeners[].name listeners[].protocol listeners[].port listeners[].hostname
        listeners[].tls.mode listeners[].tls.certificateRefs[].name
        listeners[].allowedRoutes.namespaces.from""",
    "gateway.networking.k8s.io/v1 HTTPRoute": """
        parentRefs[].name hostnames[] rules[].matches[].path.type rules[].matches[].path.value
        rules[].backendRefs[].name rules[].backendRefs[].port""",
    "networking.gke.io/v1 HealthCheckPolicy": """
        default.checkIntervalSec default.timeoutSec default.healthyThreshold
        default.unhealthyThreshold default.config.type default.config.httpHealthCheck.requestPath
        default.config.httpHealthCheck.port targetRef.group targetRef.kind targetRef.name""",
    "networking.gke.io/v1 GCPBackendPolicy": """
        default.timeoutSec default.connectionDraining.drainingTimeoutSec default.logging.enabled
        default.logging.sampleRate targetRef.group targetRef.kind targetRef.name""",
    "kueue.x-k8s.io/v1beta1 ResourceFlavor": """
        nodeLabels.* tolerations[].key tolerations[].operator tolerations[].value
        tolerations[].effect tolerations[]""",
    "kueue.x-k8s.io/v1beta1 ClusterQueue": """
        namespaceSelector.matchLabels.* queueingStrategy resourceGroups[].coveredResources[]
        resourceGroups[].flavors[].name resourceGroups[].flavors[].resources[].name
        resourceGroups[].flavors[].resources[].nominalQuota""",
    "kueue.x-k8s.io/v1beta1 LocalQueue": "clusterQueue",
    "monitoring.coreos.com/v1 PodMonitor": """
        selector.matchLabels.* podMetricsEndpoints[].port podMetricsEndpoints[].interval
        podMetricsEndpoints[].honorLabels""",
    "monitoring.coreos.com/v1 PrometheusRule": """
        groups[].name groups[].interval groups[].rules[].record groups[].rules[].alert
        groups[].rules[].expr groups[].rules[].for groups[].rules[].keep_firing_for
        groups[].rules[].labels.* groups[].rules[].annotations.*""",
    "external-secrets.io/v1 ExternalSecret": """
        refreshInterval secretStoreRef.kind secretStoreRef.name target.name target.creationPolicy
        data[].secretKey data[].remoteRef.key""",
}


def definitions() -> Path:
    """The folder of KubeRay's definitions.

    Raises:
        Skipped: There is none; an error in CI.
    """
    folder = Path(os.environ.get(DEFINITIONS) or ROOT.parent / "shared/data/kuberay-crds")
    if not list(folder.glob("crd-*.yaml")):
        raise absent(
            f"no definitions of KubeRay in {folder}",
            f"set {DEFINITIONS} to helm-chart/kuberay-operator/crds of KubeRay 1.7",
        )
    return folder


def check_ray_kinds() -> list[str]:
    """RayCluster, RayService, RayJob and RayCronJob are what KubeRay takes."""
    chosen = [(name, doc) for name, doc in documents() if doc["apiVersion"].startswith(_RAY)]
    kinds = {doc["kind"] for _, doc in chosen}
    missing = {"RayCluster", "RayService", "RayJob", "RayCronJob"} - kinds
    if missing:
        return [f"no case makes a {kind}" for kind in sorted(missing)]
    with tempfile.TemporaryDirectory() as folder:
        files = _written(chosen, Path(folder))
        program = Path(__file__).with_name("custom_resources.py")
        done = run("python", program, definitions(), *files)
        return _with_names(done.out + done.error, files) if done.status else []


def check_builtin_kinds() -> list[str]:
    """Kinds of Kubernetes itself have no field that there is not."""
    chosen = [
        (name, doc)
        for name, doc in documents()
        if not doc["apiVersion"].startswith(_RAY) and _key(doc) not in USED
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = _written(chosen, Path(folder))
        done = run("kubernetes-validate", "--strict", "-k", KUBERNETES, "--quiet", *files)
        return _with_names(done.out + done.error, files) if done.status else []


def check_other_kinds() -> list[str]:
    """Kinds of Gateway, GKE, Kueue, Prometheus and External Secrets have the fields that we use."""
    findings: list[str] = []
    seen = set()
    for name, document in documents():
        key = _key(document)
        if key not in USED:
            continue
        seen.add(key)
        known = set(USED[key].split())
        used = set(_leaves(document["spec"], ""))
        findings += [f"{name}: spec.{field} is not listed" for field in sorted(used - known)]
    return [*findings, *(f"no case makes a {key}" for key in sorted(set(USED) - seen))]


def _key(document: Document) -> str:
    return f"{document['apiVersion']} {document['kind']}"


def _leaves(value: Any, path: str) -> list[str]:
    """Paths of everything that holds no more than a value; keys that are free are a star."""
    if isinstance(value, dict) and value:
        free = path.endswith(("Labels", "labels", "annotations"))
        names = {name: "*" if free else name for name in value}
        return [
            leaf
            for name, item in value.items()
            for leaf in _leaves(item, f"{path}.{names[name]}" if path else names[name])
        ]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item, f"{path}[]")] if value else []
    return [path]


def _written(chosen: list[tuple[str, Document]], folder: Path) -> dict[Path, str]:
    files = {}
    for number, (name, document) in enumerate(chosen):
        path = folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        files[path] = name
    return files


def _with_names(text: str, files: dict[Path, str]) -> list[str]:
    """Lines of a program, with names in the place of files."""
    for path, name in files.items():
        text = text.replace(str(path), name)
    return [line for line in text.splitlines() if line.strip()]
