"""Our own rules for what the chart makes: of the cluster's nodes, and of what they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from cluster.node_settings import HAPROXY_PROGRAM, NODE_SETTINGS
from deploy_checks.charts import CHART, Document, documents, specs_of_clusters
from deploy_checks.pins import image_problem
from deploy_checks.versions import LOCK, locked_version

_GPU = "nvidia.com/gpu"


def clusters() -> Iterator[tuple[str, Document]]:
    """Spec of every cluster of every case."""
    for name, document in documents():
        for spec in specs_of_clusters(document):
            yield name, spec


def templates(spec: Document) -> Iterator[tuple[str, Document]]:
    """Pod specs of a cluster's head and pools."""
    yield "head", spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield f"pool {group['groupName']}", group["template"]["spec"]


def containers() -> Iterator[tuple[str, Document]]:
    """Every container of every document, wherever it is."""
    for name, document in documents():
        for found in _containers(document):
            yield f"{name}, {found['name']}", found


def _containers(value: Any) -> Iterator[Document]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("containers", "initContainers") and isinstance(part, list):
                yield from part
            else:
                yield from _containers(part)
    elif isinstance(value, list):
        for part in value:
            yield from _containers(part)


def check_ray_version() -> list[str]:
    """Ray on the cluster is the Ray of the lock file."""
    locked = locked_version("ray")
    return [
        f"{name}: rayVersion is {spec['rayVersion']}, {LOCK.name} has {locked}"
        for name, spec in clusters()
        if spec["rayVersion"] != locked
    ]


def check_environment() -> list[str]:
    """Head and workers have the same variables, and all that Z-TOM needs of a node."""
    findings = []
    for name, spec in clusters():
        found = {place: environment(pod) for place, pod in templates(spec)}
        head = found["head"]
        for place, variables in found.items():
            findings += [
                f"{name}: {place} and head differ in {key}"
                for key in sorted({*head, *variables})
                if head.get(key) != variables.get(key)
            ]
        findings += [f"{name}: {problem}" for problem in environment_problems(spec, head)]
    return findings


def environment(pod: Document) -> dict[str, Any]:
    """Variables of a pod's first container, which runs Ray."""
    variables = pod["containers"][0]["env"]
    names = [variable["name"] for variable in variables]
    if len(names) != len(set(names)):
        raise ValueError(f"a variable stands twice: {sorted(names)}")
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in variables}


def environment_problems(spec: Document, variables: dict[str, Any]) -> Iterator[str]:
    """What a cluster's environment lacks of `cluster.node_settings`."""
    wanted = dict(NODE_SETTINGS)
    if wanted.pop("RAY_AUTH_MODE") != spec["authOptions"]["mode"]:
        yield f"authOptions.mode is {spec['authOptions']['mode']}"
    for key, value in wanted.items():
        if variables.get(key) != value:
            yield f"{key} is {variables.get(key)!r}, cluster/node_settings.py has {value!r}"
    if not variables.get(HAPROXY_PROGRAM):
        yield f"{HAPROXY_PROGRAM} is not set"


def check_pools() -> list[str]:
    """The head computes nothing; pools are labelled, and say what Ray counts."""
    findings = []
    for name, spec in clusters():
        head = spec["headGroupSpec"]
        if head["rayStartParams"].get("num-cpus") != "0":
            findings.append(f"{name}: the head has processors")
        for group in spec["workerGroupSpecs"]:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            place = f"{name}: pool {group['groupName']}"
            if group["labels"].get("pool") != group["groupName"]:
                findings.append(f"{place} has no label pool")
            if _GPU in limits and not group["labels"].get("accelerator"):
                findings.append(f"{place} has GPUs and no label accelerator")
            counted = group["resources"]
            if (counted["CPU"], counted.get("GPU")) != (limits["cpu"], limits.get(_GPU)):
                findings.append(f"{place}: Ray counts {counted}, the pod has {limits}")
    return findings


def check_limits() -> list[str]:
    """Every container has limits, and asks for as much."""
    findings = []
    for name, container in containers():
        resources = container.get("resources", {})
        if not resources.get("limits"):
            findings.append(f"{name} has no limits")
        elif resources["limits"] != resources.get("requests"):
            findings.append(f"{name} asks for {resources.get('requests')}, may have more")
    return findings


def check_images() -> list[str]:
    """Every image is of a version or a digest."""
    found = [(name, container["image"]) for name, container in containers()]
    return [f"{name}: {problem}" for name, image in found if (problem := image_problem(image))]


def check_security() -> list[str]:
    """No container runs as root, gains rights or writes to its image."""
    findings = []
    for name, container in containers():
        rights = container.get("securityContext", {})
        if rights.get("allowPrivilegeEscalation") is not False:
            findings.append(f"{name} may gain rights")
        if rights.get("capabilities", {}).get("drop") != ["ALL"]:
            findings.append(f"{name} keeps capabilities")
        if rights.get("readOnlyRootFilesystem") is not True:
            findings.append(f"{name} may write to its image")
    for name, spec in clusters():
        for place, pod in templates(spec):
            context = pod.get("securityContext", {})
            if (context.get("runAsNonRoot"), context.get("runAsUser")) != (True, 1000):
                findings.append(f"{name}: {place} does not run as user 1000")
    return findings


def check_drain() -> list[str]:
    """What a worker does before it goes ends before it is killed."""
    findings = []
    for name, spec in clusters():
        for group in spec["workerGroupSpecs"]:
            pod = group["template"]["spec"]
            command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
            seconds = float(command[command.index("--within") + 1])
            last = float(NODE_SETTINGS["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"])
            if group["labels"]["market"] == "spot":
                last = 0.0  # the machine goes whether the answers have ended or not
            if seconds + last > pod["terminationGracePeriodSeconds"]:
                findings.append(f"{name}: pool {group['groupName']} is killed while it drains")
    return findings


def check_chart() -> list[str]:
    """The chart's versions are the product's."""
    from ztom.version import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return [
        f"Chart.yaml: {key} is {chart[key]}, the product's version is {__version__}"
        for key in ("version", "appVersion")
        if chart[key] != __version__
    ]
