"""What an auditor is answered about a variant, as a page to be printed: one file, no scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ztom.pages.page import page_template


def render_audit_page(answer: Mapping[str, Any], *, study: str | None) -> str:
    """The page.

    Args:
        answer: Answer of ``ztom audit show``: checkpoints, factors, data, events and the rest.
        study: Name of the search that the variant came from; None where there was none.
    """
    verdict = answer["verdict"]
    return _template().render(
        answer=answer,
        name=Path(answer["addresses"][0]).name,
        study=study,
        outcome=verdict if isinstance(verdict, str) else (verdict or {}).get("outcome", "none"),
        error=_error_text(answer["error"]),
        checkpoints=list(_checkpoints(answer)),
        data_sets=sorted((answer["data"] or {}).items()),
    )


@cache
def _template() -> jinja2.Template:
    return page_template(Path(__file__).with_name("audit_page.html.jinja"))


def _checkpoints(answer: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """Each checkpoint with the factor of the step into it, or its factors; the base has none."""
    factors, groups = iter(answer["factors"]), answer.get("groups") or ("",)
    for position, member in enumerate(answer["checkpoints"]):
        row = [] if position == 0 else [f"{group} {next(factors):+.6g}" for group in groups]
        factor = ", ".join(text.strip() for text in row)
        yield {
            "tag": member["tag"],
            "reference": member["reference"],
            "sha256": member["sha256"],
            "factor": factor,
        }


def _error_text(error: object) -> str:
    if not error:
        return "none is on record"
    terms = error if isinstance(error, list) else [error]
    return " + ".join(
        str(term.get("function", term)) if isinstance(term, dict) else str(term) for term in terms
    )
