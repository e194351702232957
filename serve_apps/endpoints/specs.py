"""From a deployment on record to the Ray Serve application that it runs in.

A full-weight variant has an application of its own. Adapters of one base that are served alike
share one. A variant that is swapped in live runs in the application of the one whose place it
takes. Other options make another application, with a name of its own: it starts beside the one
that runs, and takes its traffic over when it is ready.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from serve_apps.variants.args import (
    SHARED_DEPLOYMENT,
    VARIANT_DEPLOYMENT,
    BaseArgs,
    ServingArgs,
    VariantArgs,
    check_options,
)
from ztom.errors import ConfigError
from ztom.ledger.deployments import DeploymentRecord
from ztom.rollout.routing import SHORT, Digest, Placement

#: Applications with these names are the controller's; it removes those that nobody needs.
PREFIXES = ("variant-", "base-")


class DeployOptions(ServingArgs):
    """What can be set when a variant is deployed."""

    timeout_s: float = Field(
        default=120, gt=0, le=3600, description="seconds until an answer must have begun"
    )
    price_per_hour: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="of one replica, for the cost metric"
    )
    live_swap: bool = Field(
        default=False, description="hold the chain, so that other blends of it can be swapped in"
    )
    swap_into: Digest | None = Field(
        default=None, description="variant whose running application this one is swapped into"
    )
    max_loras: int = Field(default=8, ge=1, le=256, description="see BaseArgs")
    max_cpu_loras: int = Field(default=64, ge=1, le=10_000, description="see BaseArgs")
    max_lora_rank: int = Field(default=64, ge=1, le=512, description="see BaseArgs")


@dataclass(frozen=True, slots=True)
class AppSpec:
    """An application that has to run.

    Attributes:
        name: Of the application.
        deployment: In it.
        args: What it is built from.
    """

    name: str
    deployment: str
    args: VariantArgs | BaseArgs


def parse_options(values: Mapping[str, Any]) -> DeployOptions:
    """Check options.

    Raises:
        ConfigError: Names every option that is wrong.
    """
    return check_options(DeployOptions, values, "the deployment's options are wrong")


def app_spec(record: DeploymentRecord) -> AppSpec:
    """The application that a deployment needs.

    Raises:
        ConfigError: Its options or its folder cannot be used.
    """
    options = parse_options(record.options)
    fields = BaseArgs if record.base else VariantArgs
    given = options.model_dump(mode="json", include=set(fields.model_fields), exclude_defaults=True)
    try:
        if record.base is None:
            args: VariantArgs | BaseArgs = VariantArgs(
                variant=Path(record.address), name=record.name, **given
            )
            name = f"variant-{record.name}-{record.digest[:SHORT]}"
            return AppSpec(f"{name}-{_short(given)}" if given else name, VARIANT_DEPLOYMENT, args)
        args = BaseArgs(base=record.base["reference"], digest=record.base["digest"], **given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError("the deployment cannot be served", got=first["msg"]) from error
    name = f"base-{args.digest[:SHORT]}"
    return AppSpec(f"{name}-{_short(given)}" if given else name, SHARED_DEPLOYMENT, args)


def _short(given: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:6]


def placement(record: DeploymentRecord, spec: AppSpec) -> Placement:
    """What the routing table says of a deployment in its application."""
    return Placement(
        name=record.name,
        app=spec.name,
        deployment=spec.deployment,
        folder=record.address,
        timeout_s=parse_options(record.options).timeout_s,
        project=record.project_id,
    )
