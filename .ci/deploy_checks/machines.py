"""Terraform, and `ray up` for those without Kubernetes: parsed, and held against policies.

Nothing is planned or applied: both need a project and credentials.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy_checks.charts import CHART
from deploy_checks.pins import image_problem
from deploy_checks.tools import CHECKOV, CLUSTER, run
from deploy_checks.versions import locked_version

TERRAFORM = CLUSTER / "terraform"
RAY_UP = CLUSTER / "ray-up"
_POOL = "ztom/pool"


@cache
def terraform() -> dict[str, Any]:
    """What each file of Terraform holds, by its name.

    Raises:
        ValueError: One cannot be parsed; the message is the parser's.
    """
    program = Path(__file__).with_name("terraform_files.py")
    done = run("python", program, TERRAFORM)
    if done.status:
        raise ValueError(done.problem)
    files: dict[str, Any] = json.loads(done.out)
    return files


def check_terraform_parses() -> list[str]:
    """Every file of Terraform is one, and names the versions of what it needs."""
    needed = providers(terraform()["versions.tf"])
    findings = [f"versions.tf: {name} is of any version" for name, v in needed.items() if not v]
    return findings or ([] if needed else ["versions.tf names no provider"])


def providers(versions: dict[str, Any]) -> dict[str, str]:
    """Versions of the providers that a file asks for, by name."""
    blocks = [b for part in versions["terraform"] for b in part.get("required_providers", [])]
    return {
        name: str(wanted.get("version", ""))
        for block in blocks
        for name, wanted in block.items()
        if isinstance(wanted, dict)
    }


def check_terraform_policies() -> list[str]:
    """`checkov`, with the exceptions that `.checkov.yaml` names and explains."""
    config = TERRAFORM / ".checkov.yaml"
    done = run(
        "checkov",
        *("--directory", TERRAFORM, "--config-file", config, "--skip-download"),
        environment=CHECKOV,
    )
    return [*unexplained(config), *([done.problem] if done.status else [])]


def unexplained(config: Path) -> list[str]:
    """Exceptions of a configuration of checkov without a reason beside them."""
    lines = re.findall(r"^ +- (CKV\w+)( +# .+)?$", config.read_text(encoding="utf-8"), re.M)
    return [f"{config.name}: {name} is left out without a reason" for name, why in lines if not why]


def check_pools() -> list[str]:
    """The pools that the chart's values choose are those that Terraform makes, with their GPUs."""
    made = _terraform_pools()
    findings = []
    for path in sorted(CHART.glob("values-gke-*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        chosen = {f"pools.{name}": pool for name, pool in values["pools"].items()}
        for name, pool in {"head": values["head"], **chosen}.items():
            label = pool["nodeSelector"].get(_POOL)
            if label not in made:
                findings.append(f"{path.name}: {name} chooses {label}, which Terraform has not")
            elif made[label] != (pool.get("gpus", 0), pool.get("spot", False)):
                findings.append(
                    f"{path.name}: {name} and Terraform's {label} differ: {made[label]}"
                )
    return findings


def _terraform_pools() -> dict[str, tuple[int, bool]]:
    """GPUs of a machine, and whether it is spot, of each of Terraform's pools."""
    variables = terraform()["variables.tf"]["variable"]
    named = {key.strip('"'): value for part in variables for key, value in part.items()}
    pools = named["pools"]["default"]
    plain = {name.strip('"'): pool for name, pool in pools.items() if not name.startswith("__")}
    return {name: (int(p.get("gpus", 0)), is_true(p.get("spot"))) for name, p in plain.items()}


def is_true(value: Any) -> bool:
    """Whether a value of Terraform is true, which its parser may leave as an expression."""
    return str(value).strip("${}").lower() == "true"


def check_ray_up() -> list[str]:
    """`ray up` takes the file: by Ray's own validator, with its defaults filled in."""
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = _yaml(RAY_UP / "gce.yaml")
    validate_config(fillout_defaults(json.loads(json.dumps(config))))
    findings = node_type_problems(config)
    if problem := image_problem(config["docker"]["image"]):
        findings.append(f"gce.yaml: {problem}")
    return findings


def node_type_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with the kinds of machine of a configuration of `ray up`."""
    kinds = config["available_node_types"]
    head = kinds[config["head_node_type"]]
    findings = [] if head["resources"].get("CPU") == 0 else ["gce.yaml: the head has processors"]
    for name, kind in kinds.items():
        cards = kind["node_config"].get("guestAccelerators", [])
        wanted = sum(card["acceleratorCount"] for card in cards)
        if kind["resources"].get("GPU", 0) != wanted:
            findings.append(f"gce.yaml: {name} has {wanted} GPUs, Ray counts another number")
        if wanted and not kind.get("labels", {}).get("pool"):
            findings.append(f"gce.yaml: {name} has no label pool")
    return findings


def check_skypilot() -> list[str]:
    """skypilot.yaml names a machine, versions and the commands of the product."""
    task = _yaml(RAY_UP / "skypilot.yaml")
    known = {"name", "resources", "num_nodes", "envs", "secrets", "file_mounts", "setup", "run"}
    findings = [f"skypilot.yaml: {name} is no key of a task" for name in set(task) - known]
    problem = image_problem(task["resources"]["image_id"].removeprefix("docker:"))
    if problem:
        findings.append(f"skypilot.yaml: {problem}")
    if locked_version("ray") not in (RAY_UP / "gce.yaml").read_text(encoding="utf-8"):
        findings.append("gce.yaml does not name the lock's Ray")
    return findings


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
