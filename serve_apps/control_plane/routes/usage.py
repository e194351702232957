"""Who used how much of what is served: a project's members see theirs, administrators all."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.usage_report import (
    DIMENSIONS,
    Prices,
    lost_sentences,
    total_line,
    usage_lines,
)
from ztom.ledger.usage import UsageDimension
from ztom.wire.usage import UsageBy, UsageReport

router = APIRouter(tags=["usage"])

_ALL = tuple(UsageBy)
#: Days that one report is of at most.
_MOST_DAYS = 800

Price = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]


@route(router, "GET", "/v1/usage", Permission.USER)
def usage(
    caller: CallerOf,
    services: ServicesOf,
    first: Annotated[date | None, Query(alias="from")] = None,
    last: Annotated[date | None, Query(alias="to")] = None,
    by: Annotated[list[UsageBy] | None, Query()] = None,
    project_id: Annotated[str | None, Query(alias="projectId", max_length=100)] = None,
    price_per_hour: Annotated[Price, Query(alias="pricePerHour")] = None,
    price_per_1000_prompt_tokens: Annotated[Price, Query(alias="pricePer1000PromptTokens")] = None,
    price_per_1000_completion_tokens: Annotated[
        Price, Query(alias="pricePer1000CompletionTokens")
    ] = None,
) -> UsageReport:
    """Requests, tokens, engine seconds and their cost, by key, project, variant and day."""
    today = datetime.now(UTC).date()
    end = last or today
    start = first or end.replace(day=1)
    if not 0 <= (end - start).days < _MOST_DAYS:
        raise HTTPException(
            422, f"from {start} to {end}: from must not be after to, nor {_MOST_DAYS} days before."
        )
    wanted = tuple(name for name in _ALL if name in (by or _ALL))
    projects, keys = _seen(caller, services, project_id)
    days = {"first": start.isoformat(), "last": end.isoformat()}
    dimensions = {DIMENSIONS[name] for name in wanted} | {UsageDimension.VARIANT}
    sums = services.ledger.usage.sums(dimensions, projects=projects, keys=keys, **days)
    names = services.ledger.usage.names([key for key, _ in sums])
    prices = Prices(price_per_hour, price_per_1000_prompt_tokens, price_per_1000_completion_tokens)
    lines = usage_lines(sums, wanted, names, prices)
    return UsageReport(
        first=days["first"],
        last=days["last"],
        by=wanted,
        lines=lines,
        total=total_line(lines),
        not_counted=lost_sentences(services.ledger.usage.lost(**days)),
    )


def _seen(
    caller: Caller, services: ServicesOf, project_id: str | None
) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    """Projects that count, None for all, and keys that count whatever their project."""
    if project_id is not None:
        seen = caller.projects_seen()
        if seen is not None and project_id not in seen:
            raise HTTPException(404, "There is no such project.")
        services.ledger.projects.get(project_id)
        return frozenset({project_id}), ()
    if caller.key is not None and caller.key.project_id is not None:
        return caller.projects_seen(), ()
    own = (key.id for key in services.ledger.accounts.keys(caller.user.id))
    return caller.projects_seen(), (caller.user.id, *own)
