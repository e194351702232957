"""Edits: factors set by hand, training removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.chains import project_chain
from serve_apps.control_plane.downloads import send_folder
from serve_apps.control_plane.openapi import SENDS_BYTES
from serve_apps.control_plane.pending import pending_request
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import blend
from ztom.blending.groups import FactorGroups
from ztom.ledger.requests import RequestKind
from ztom.wire.analyses import Edit, Metatune

router = APIRouter(tags=["edits and analyses"])


@route(router, "POST", "/metatune", Permission.WRITE, **SENDS_BYTES)
async def metatune(body: Metatune, caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """Scale steps of the chain by hand and download the blend, one tar of its folder."""
    width, rest = divmod(len(body.scaling_factors), len(body.file_ids))
    if body.factor_groups is None and len(body.file_ids) != len(body.scaling_factors):
        raise HTTPException(422, "fileIds and scalingFactors differ in length.")
    if rest or not width:
        raise HTTPException(422, "scalingFactors needs a factor for each file and group.")
    if len(set(body.file_ids)) != len(body.file_ids):
        raise HTTPException(422, "A file is named twice.")
    values = iter(body.scaling_factors)
    factors = {file_id: tuple(islice(values, width)) for file_id in body.file_ids}
    return await _edit(
        RequestKind.METATUNE, body, factors, caller, services, groups=body.factor_groups
    )


@route(router, "POST", "/edit", Permission.WRITE, **SENDS_BYTES)
async def edit(body: Edit, caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """Remove what was trained in the steps that end in these files, and download the rest."""
    factors = dict.fromkeys(body.file_ids, (-1.0,))
    return await _edit(RequestKind.EDIT, body, factors, caller, services)


async def _edit(
    kind: RequestKind,
    body: Edit,
    factors: Mapping[str, Sequence[float]],
    caller: Caller,
    services: Services,
    *,
    groups: FactorGroups | None = None,
) -> StreamingResponse:
    project_id = await asyncio.to_thread(caller.project, body.project_id)
    project = await asyncio.to_thread(services.ledger.projects.get, project_id)
    await asyncio.to_thread(services.account_limits.require_bytes, [caller.user.id])
    chain = await asyncio.to_thread(project_chain, project, services, body)
    alpha = chain.factors(factors)
    spec = chain.spec(services)
    parameters: dict[str, Any] = {
        "fileIds": list(factors),
        "scalingFactors": [value for of_step in factors.values() for value in of_step],
    }
    if groups is not None:
        parameters["factorGroups"] = groups.model_dump(mode="json", exclude_none=True)
        spec = replace(spec, groups=parameters["factorGroups"])
    async with pending_request(kind, caller, services, project_id, parameters) as pending:
        folder = await asyncio.to_thread(services.store.request_folder, pending.record.id)
        target = str(folder / "variant")
        written = await services.runner.call(
            blend,
            spec,
            alpha,
            target,
            ledger=services.config.ledger_address,
            actor=caller.actor,
        )
        warnings = [services.store.without_folders(text) for text in written.warnings]
        pending.result = {
            "factors": list(alpha),
            **({"factorLabels": list(chain.labels(written.groups))} if written.groups else {}),
            "variantDigest": written.digest,
            "realisedStep": written.realised,
            "warnings": warnings,
        }
        pending.artifact = target
    headers = {"X-Ztom-Request-Id": pending.record.id, "X-Ztom-Variant": written.digest}
    if body.warnings or warnings:
        notes = " | ".join(" ".join(text.split()) for text in (*body.warnings, *warnings))
        headers["X-Ztom-Warnings"] = notes.encode("ascii", "replace").decode()[:2000]
    name = f"{kind}-{pending.record.id[:8]}.tar"
    return await asyncio.to_thread(lambda: send_folder(target, name, services, headers))
