"""Groups of tensors: with them, a scaling factor belongs to a step of the chain and to a group.

``W(alpha) = W_n + sum_i sum_g alpha_(i,g) * mask_g * (W_i - W_(i-1))`` with ``mask_g`` 1 on the
tensors of group g. Every tensor that a step can move is in exactly one group, so a blend of one
tensor is what it always was, with the factors of its group. Factors are a flat list, step by step,
and in a step group by group. A rule (`FactorGroups`) says which groups there are; what it comes to
for one chain (`GroupAssignment`, made by `ztom.blending.group_assignment`) names the group of every
tensor, and is what a recipe records: a later version may know more families, and derives the same
bytes. No torch is needed here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.blending.module_kinds import ModuleKind
from ztom.io.problems import check_model

#: The group of what no pattern, no layer and no listed kind names.
REST = "rest"
GroupName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,60}$")]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field()]
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class FactorGroups(BaseModel):
    """How the tensors of a model are divided; one of the three, or ``kinds`` as a word.

    Attributes:
        layers: Number of blocks of layers, of about equal length; what is in no layer is ``rest``.
        kinds: Kinds of modules, each a group, or ``all`` that the model has; what is of another
            kind is ``rest``.
        patterns: Globs on names of tensors, by the name of the group.
        rest: Whether what no pattern names is a group of its own, ``rest``, or refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int | None = Field(default=None, ge=1, le=10_000)
    kinds: Literal["all"] | tuple[ModuleKind, ...] | None = None
    patterns: dict[GroupName, Patterns] | None = None
    rest: Literal["group", "refuse"] = "group"

    @model_validator(mode="before")
    @classmethod
    def _by_word(cls, data: Any) -> Any:
        if isinstance(data, str) and data != "kinds":
            raise ValueError("groups are kinds, {layers: N}, {kinds: [...]} or {patterns: {...}}")
        return {"kinds": "all"} if data == "kinds" else data

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [
            name for name in ("layers", "kinds", "patterns") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"give one of layers, kinds and patterns, got {' and '.join(given) or 'none'}"
            )
        if self.kinds is not None and self.kinds != "all":
            if not self.kinds:
                raise ValueError("kinds is empty: name a kind, or say all")
            if len(set(self.kinds)) != len(self.kinds):
                raise ValueError("a kind stands twice")
        if self.patterns is not None:
            self._check_patterns(self.patterns)
        if self.rest == "refuse" and self.patterns is None:
            raise ValueError("rest: refuse belongs to patterns")
        return self

    @staticmethod
    def _check_patterns(patterns: Mapping[str, Sequence[str]]) -> None:
        if not patterns:
            raise ValueError("patterns has no group: name one, or leave groups out")
        for name, globs in patterns.items():
            if not globs:
                raise ValueError(f"group {name!r} has no pattern")
        if REST in patterns:
            raise ValueError(f"{REST!r} is the group of what no pattern names: choose another name")


class GroupRecord(BaseModel):
    """A division as a recipe has it: it is derived from again, whatever later rules would say.

    Attributes:
        names: Names of the groups, in the order of the factors.
        rule: Rule that it came from.
        tensors: Group by the name of the tensor, numbers of layers as ``*`` where all of these
            tensors are in it.
        digest: sha256 over the group of every tensor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...]
    rule: dict[str, Any]
    tensors: dict[str, str]
    digest: str


class GroupedFactors(BaseModel):
    """Factors with the groups that they are of: what another blend of a held chain takes.

    Attributes:
        factors: One per transition, or per transition and group.
        groups: Record of the groups; None where a transition has one factor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factors: tuple[float, ...]
    groups: GroupRecord | None = None


@dataclass(frozen=True)
class GroupAssignment:
    """The group of every tensor that the steps of one chain can move.

    Attributes:
        names: Names of the groups, in the order of the factors.
        tensors: Position of the group by the name of the tensor, sorted by name.
        rule: Rule that it came from.
    """

    names: tuple[str, ...]
    tensors: Mapping[str, int]
    rule: FactorGroups

    @cached_property
    def digest(self) -> str:
        """sha256 over the groups in order, and the group of every tensor."""
        content = [list(self.names), [[name, at] for name, at in sorted(self.tensors.items())]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tensors in each group."""
        positions = list(self.tensors.values())
        return tuple(positions.count(at) for at in range(len(self.names)))

    def record(self) -> GroupRecord:
        """What a recipe says of it."""
        shared: dict[str, set[int]] = {}
        for name, at in self.tensors.items():
            shared.setdefault(without_numbers(name), set()).add(at)
        short = {}
        for name, at in self.tensors.items():
            stem = without_numbers(name)
            short[stem if len(shared[stem]) == 1 else name] = self.names[at]
        return GroupRecord(
            names=self.names,
            rule=self.rule.model_dump(mode="json", exclude_none=True),
            tensors=dict(sorted(short.items())),
            digest=self.digest,
        )


def parse_groups(rule: object) -> FactorGroups:
    """A rule as it was written.

    Raises:
        ConfigError: It makes no sense; names every key that is wrong.
    """
    return check_model(FactorGroups, rule, wrong="the groups of factors are wrong", quote=True)


def division_key(rule: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of a rule, as JSON, decides which factors there are and in which order."""
    if rule is None:
        return None
    kept = {key: value for key, value in rule.items() if value is not None}
    if isinstance(kept.get("patterns"), Mapping):
        kept["patterns"] = [[name, list(globs)] for name, globs in kept["patterns"].items()]
    return kept


def transition_names(tags: Sequence[str], topology: str) -> tuple[str, ...]:
    """A name per transition, of the names of the members, base first."""
    before = tags[:-1] if topology == "sequence" else (tags[0],) * (len(tags) - 1)
    return tuple(f"{a} -> {b}" for a, b in zip(before, tags[1:], strict=True))


def factor_labels(steps: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """A name per factor: step by step, and in a step group by group; the steps without groups."""
    if not groups:
        return tuple(steps)
    return tuple(f"{step}: {group}" for step in steps for group in groups)


def without_numbers(name: str) -> str:
    """A tensor's name with ``*`` for numbers: what the same tensors of all layers are called."""
    return _NUMBER.sub("*", name)
