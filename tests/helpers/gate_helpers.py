"""Suites and results on them, made up item by item."""

import hashlib
from collections.abc import Sequence

from ztom.evaluation.runs.results import Conditions, ItemResult, ModelRef, SuiteRun, ref_of
from ztom.evaluation.suites.suite import AnswerCheck, Item, Suite, SuiteConfig

CONDITIONS = Conditions(engine="fake", version="1", device="cpu", setup="usual")


def model(name: str) -> ModelRef:
    return ModelRef(name=name, digest=hashlib.sha256(name.encode()).hexdigest())


def make_suite(
    n: int = 100,
    *,
    layer: str = "frozen",
    name: str = "suite",
    digest: str = "0",
    clusters: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    must_pass: Sequence[int] = (),
    ids: Sequence[str] | None = None,
    **settings,
) -> Suite:
    if layer == "behavioural":
        settings = {"metric": "checks", "checks": (AnswerCheck(kind="refusal"),), **settings}
        if settings.get("repeats", 1) > 1:
            settings["decode"] = {"temperature": 1.0}
    config = SuiteConfig.model_validate(
        {
            "name": name,
            "version": "1.0.0",
            "layer": layer,
            "metric": "exact_match",
            "owner": "tests",
            **settings,
        }
    )
    items = tuple(
        Item(
            id=ids[i] if ids else f"i{i:04}",
            input="q",
            cluster_id=clusters[i] if clusters else None,
            slice=slices[i] if slices else None,
            must_pass=i in must_pass,
        )
        for i in range(n)
    )
    return Suite(config=config, items=items, digest=digest * 64)


def make_run(
    suite: Suite,
    values: Sequence[float | None],
    name: str = "candidate",
    *,
    parts: Sequence[Sequence[float]] | None = None,
) -> SuiteRun:
    return SuiteRun(
        suite=ref_of(suite),
        model=model(name),
        key="key",
        conditions=CONDITIONS,
        items=tuple(
            ItemResult(
                id=item.id,
                value=value,
                parts=tuple(parts[i]) if parts else (),
                repeats=suite.config.repeats,
                problem="the engine died" if value is None else None,
            )
            for i, (item, value) in enumerate(zip(suite.items, values, strict=True))
        ),
    )


def right(n: int, *, wrong: range = range(0)) -> list[float]:
    """1 for each item but some."""
    return [0.0 if i in wrong else 1.0 for i in range(n)]
