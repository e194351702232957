"""Rows of a data set and their labels, as they are kept: JSON Lines whose bytes never change."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ztom.stimuli.records import Message, Prompt, Stimulus

_ID_LENGTH = 24  # hex digits: 96 bits


class Row(BaseModel):
    """Something that was asked.

    Attributes:
        id: Digest of prompt and group: the same row added twice is one.
        prompt: Text, turns of a chat as their fields, or a row of numbers.
        group: Customer, thread or document it belongs to; groups are never split.
        metadata: What else the file's record said of it; never interpreted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    prompt: str | tuple[dict[str, str], ...] | tuple[float, ...]
    group: str
    metadata: dict[str, object] = Field(default_factory=dict)

    @classmethod
    def of(cls, stimulus: Stimulus) -> Row:
        """The row of a stimulus."""
        prompt = _plain(stimulus.prompt)
        content = json.dumps([prompt, stimulus.group], ensure_ascii=False, separators=(",", ":"))
        return cls(
            id=hashlib.sha256(content.encode()).hexdigest()[:_ID_LENGTH],
            prompt=prompt,
            group=stimulus.group,
            metadata=dict(stimulus.metadata),
        )

    def stimulus(self, expected: str = "") -> Stimulus:
        """The row as a stimulus.

        Args:
            expected: Expected output of it.
        """
        prompt: Prompt
        if isinstance(self.prompt, str):
            prompt = self.prompt
        elif all(isinstance(part, dict) for part in self.prompt):
            prompt = tuple(Message(**part) for part in self.prompt if isinstance(part, dict))
        else:
            prompt = tuple(part for part in self.prompt if isinstance(part, float))
        return Stimulus(self.id, prompt, expected, self.group, self.metadata)


class Label(BaseModel):
    """What somebody says is the right answer to a row.

    Attributes:
        row: Id of the row.
        label: Class, or the text of the answer.
        source: Who says so: a person, a file, a feedback key.
        time: Time at which it was said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: str
    label: str
    source: str
    time: AwareDatetime


class LabelHistory:
    """Labels by row: all are kept, the newest of each source counts, and sources may disagree.

    Args:
        labels: Labels in any order.
    """

    def __init__(self, labels: Iterable[Label]) -> None:
        self._by_row: dict[str, list[Label]] = defaultdict(list)
        for label in sorted(labels, key=lambda item: (item.time, item.source, item.label)):
            self._by_row[label.row].append(label)

    def of(self, row: str) -> Sequence[Label]:
        """All labels of a row, the oldest first."""
        return self._by_row.get(row, [])

    def newest(self, row: str) -> Label | None:
        """The label that counts, the newest of all sources; None for a row without any."""
        labels = self.of(row)
        return labels[-1] if labels else None

    def is_relabelled(self, row: str) -> bool:
        """Whether a source has changed its mind about a row."""
        first: dict[str, str] = {}
        return any(first.setdefault(item.source, item.label) != item.label for item in self.of(row))

    def is_in_conflict(self, row: str) -> bool:
        """Whether the newest labels of several sources differ."""
        newest = {item.source: item.label for item in self.of(row)}
        return len(set(newest.values())) > 1


def _plain(prompt: Prompt) -> str | tuple[dict[str, str], ...] | tuple[float, ...]:
    if isinstance(prompt, str):
        return prompt
    turns = tuple(part.fields() for part in prompt if isinstance(part, Message))
    return turns or tuple(part for part in prompt if isinstance(part, float))
