"""Makes the Ray Serve application that a deployment on record runs in.

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

from pydantic import ValidationError

from serve_apps.variants.args import (
    SHARED_DEPLOYMENT,
    VARIANT_DEPLOYMENT,
    BaseArgs,
    VariantArgs,
)
from ztom.errors import ConfigError
from ztom.io.places import parse_place
from ztom.io.problems import problem_sentence
from ztom.ledger.deployments import DeploymentRecord
from ztom.rollout.routing import SHORT, Placement

#: Applications with these names are the controller's; it removes those that nobody needs.
PREFIXES = ("variant-", "base-")


@dataclass(frozen=True, slots=True)
class AppSpec:
    """An application that has to run.

    Attributes:
        name: Name of the application.
        deployment: Name of the Serve deployment that runs the variant in it.
        args: Arguments that the application is built from.
    """

    name: str
    deployment: str
    args: VariantArgs | BaseArgs


def app_spec(record: DeploymentRecord) -> AppSpec:
    """The application that a deployment needs.

    Raises:
        ConfigError: Its options or its folder cannot be used.
    """
    options = record.options
    fields = BaseArgs if record.base else VariantArgs
    given = options.model_dump(mode="json", include=set(fields.model_fields), exclude_defaults=True)
    try:
        if record.base is None:
            args: VariantArgs | BaseArgs = VariantArgs(
                variant=parse_place(record.address), name=record.name, **given
            )
            name = f"variant-{record.name}-{record.digest[:SHORT]}"
            return AppSpec(f"{name}-{_short(given)}" if given else name, VARIANT_DEPLOYMENT, args)
        args = BaseArgs(base=record.base["reference"], digest=record.base["digest"], **given)
    except ValidationError as error:
        problems = problem_sentence(error, given, model=fields, whole="the deployment")
        raise ConfigError("the deployment cannot be served", reason=problems) from error
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
        timeout_s=record.options.timeout_s,
        project=record.project_id,
    )
