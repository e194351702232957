"""Rows for Label Studio, and the labels it gives back, in its own JSON forms.

Tasks are those of its import: ``data`` with ``text``, and ``row`` for the way back. Annotations are
those of its export (JSON): the newest annotation of each annotator that was not cancelled, of a
choice or a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ztom.data.rows import Label, Row
from ztom.errors import StimuliError
from ztom.io.problems import check_model
from ztom.stimuli.prompts import prompt_text


def tasks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Tasks of rows, for its import."""
    return [
        {"data": {"row": row.id, "group": row.group, "text": prompt_text(row.stimulus().prompt)}}
        for row in rows
    ]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _LabelValue(_Loose):
    choices: tuple[str, ...] = ()
    text: tuple[str, ...] | str = ()


class _Result(_Loose):
    value: _LabelValue


class _Annotation(_Loose):
    result: tuple[_Result, ...] = ()
    created_at: AwareDatetime
    completed_by: int | str | dict[str, Any] = "unknown"
    was_cancelled: bool = False


class _Task(_Loose):
    data: dict[str, Any]
    annotations: tuple[_Annotation, ...] = Field(default=())


def read_labels(document: object, *, source: str) -> list[Label]:
    """Labels of an export.

    Args:
        document: The parsed document: a list of tasks with their annotations.
        source: Name that annotators' names are put behind: ``label-studio/ann``.

    Raises:
        StimuliError: It is no such export, or a task did not come from `tasks`.
    """
    if not isinstance(document, list):
        raise StimuliError(
            "this is no export of Label Studio", got=type(document).__name__, expected="a list"
        )
    labels = []
    for place, item in enumerate(document, start=1):
        task = check_model(
            _Task, item, wrong=f"task {place} is malformed", kind=StimuliError,
            expected="Label Studio's JSON export",
        )  # fmt: skip
        row = task.data.get("row")
        if not isinstance(row, str):
            raise StimuliError(
                f"task {place} did not come from here",
                got=f"data with {', '.join(sorted(task.data)) or 'nothing'}",
                expected="the key row, as exported",
            )
        for annotation in task.annotations:
            label = _label(annotation)
            if label is not None and not annotation.was_cancelled:
                by = f"{source}/{_annotator(annotation.completed_by)}"
                labels.append(Label(row=row, label=label, source=by, time=annotation.created_at))
    return labels


def _label(annotation: _Annotation) -> str | None:
    for result in annotation.result:
        text = result.value.text
        parts = [*result.value.choices, *((text,) if isinstance(text, str) else text)]
        if parts:
            return parts[0]
    return None


def _annotator(value: int | str | dict[str, Any]) -> str:
    if isinstance(value, dict):
        return str(value.get("email") or value.get("id") or "unknown")
    return str(value)
