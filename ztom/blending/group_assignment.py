"""Which group each tensor of a chain is in: by layers, by kinds of modules, or by patterns.

Only what a step can move is divided: the blended tensors of full weights, or what adapters adapt.
Names are those under which the latest checkpoint stores its tensors; a head that is tied has the
group of its embedding. See `ztom.blending.groups` for what groups are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

from ztom.blending.chain import Chain
from ztom.blending.groups import REST, FactorGroups, GroupAssignment, GroupRecord, without_numbers
from ztom.blending.module_kinds import KINDS, ModuleKind, kind_of
from ztom.checkpoints.config_checks import find_embedding
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.heads import stored_head, ties_head
from ztom.errors import ConfigError

_LAYER = re.compile(r"^(?P<stack>(?:.*?\.)??)(?P<number>\d+)\.")
_SHOWN = 3


def group_chain(chain: Chain, rule: FactorGroups | None) -> Chain:
    """The chain with a factor for each step and group; as it is without a rule.

    Args:
        chain: Chain that was opened and checked.
        rule: Rule that says which groups there are.

    Raises:
        ConfigError: A group has no tensors, a tensor belongs to two, or the model has too few
            layers; names them.
    """
    if rule is None:
        return chain
    names = _movable(chain)
    twins = {h: e for h, e in _twins(chain).items() if h in names and e in names}
    _refuse_split_twins(rule.patterns or {}, twins)
    assigned = _assign(rule, [name for name in names if name not in twins])
    tied = {name: assigned[twin] for name, twin in twins.items()}
    present = {**assigned, **tied}
    order = _order(rule, set(present.values()))
    tensors = {name: order.index(present[name]) for name in sorted(present)}
    return replace(chain, groups=GroupAssignment(order, tensors, rule))


def regroup_chain(chain: Chain, record: GroupRecord | None) -> Chain:
    """The chain with the division that a recipe has; as it is without one.

    Raises:
        ConfigError: It does not fit the chain, or is not what was recorded.
    """
    if record is None:
        return chain
    tensors = {}
    for name in _movable(chain):
        group = record.tensors.get(name, record.tensors.get(without_numbers(name)))
        if group not in record.names:
            raise ConfigError(
                f"the recorded groups of factors do not say where {name} belongs",
                got=group or "nothing",
                expected=", ".join(record.names),
            )
        tensors[name] = record.names.index(group)
    assignment = GroupAssignment(
        record.names, dict(sorted(tensors.items())), FactorGroups.model_validate(record.rule)
    )
    if assignment.digest != record.digest:
        raise ConfigError(
            "the groups of factors are not those that were recorded",
            got=assignment.digest[:12],
            expected=record.digest[:12],
        )
    return replace(chain, groups=assignment)


def _movable(chain: Chain) -> list[str]:
    """Names of the tensors that a step can change: what is blended, or what adapters adapt."""
    if chain.is_adapter_chain:
        adapted = {n for adapter in chain.adapters if adapter is not None for n in adapter.factors}
        return sorted(adapted)
    return sorted(
        name
        for name, spec in chain.members[chain.model].tensors.items()
        if spec.dtype.is_floating_point and not is_derived(name, spec.shape)
    )


def _twins(chain: Chain) -> dict[str, str]:
    """The embedding by the name of a head that is stored, although it is tied."""
    model = chain.members[chain.model]
    head, embedding = stored_head(model), find_embedding(model.tensors)
    if head is None or embedding is None or not ties_head(model):
        return {}
    return {head.name: embedding.name}


def _refuse_split_twins(patterns: Mapping[str, Sequence[str]], twins: Mapping[str, str]) -> None:
    for head, embedding in twins.items():
        named, other = _matching(patterns, head), _matching(patterns, embedding)
        if named and named != other:
            raise ConfigError(
                f"factors.groups.patterns: {head} is tied to {embedding}, they have one factor",
                got=f"{', '.join(named)}, and {', '.join(other) or REST} for {embedding}",
                expected="both in one group",
            )


def _assign(rule: FactorGroups, names: Sequence[str]) -> dict[str, str]:
    """The group of each tensor by its name."""
    if rule.layers is not None:
        return _by_layers(names, rule.layers)
    if rule.kinds is not None:
        return _by_kinds(names, rule.kinds)
    return _by_patterns(names, rule.patterns or {}, refuse_rest=rule.rest == "refuse")


def _by_layers(names: Sequence[str], blocks: int) -> dict[str, str]:
    """Blocks of equal length, in each stack of layers that has as many layers or more."""
    stacks: dict[str, set[int]] = {}
    places = {name: _place(name) for name in names}
    for stack, number in filter(None, places.values()):
        stacks.setdefault(stack, set()).add(number)
    divided = {
        stack: sorted(numbers) for stack, numbers in stacks.items() if len(numbers) >= blocks
    }
    if not divided:
        deepest = max((len(numbers) for numbers in stacks.values()), default=0)
        raise ConfigError(
            "factors.groups.layers: the model has fewer layers than blocks are asked for",
            got=f"{blocks} blocks",
            expected=f"{deepest} or fewer" if deepest else "a model with numbered layers",
            fix="Ask for fewer blocks, or use kinds or patterns.",
        )
    groups = {}
    for name, place in places.items():
        numbers = divided.get(place[0], []) if place else []
        if not place or not numbers:
            groups[name] = REST
            continue
        block = numbers.index(place[1]) * blocks // len(numbers)
        groups[name] = _block_name(block, blocks, list(divided.values()))
    return groups


def _place(name: str) -> tuple[str, int] | None:
    match = _LAYER.match(name)
    return (match["stack"], int(match["number"])) if match else None


def _block_name(block: int, blocks: int, stacks: Sequence[Sequence[int]]) -> str:
    """The layers of a block where all stacks have the same, else which block it is."""
    if any(stack != stacks[0] for stack in stacks):
        return f"block {block + 1} of {blocks}"
    numbers = [n for at, n in enumerate(stacks[0]) if at * blocks // len(stacks[0]) == block]
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {numbers[0]}-{numbers[-1]}"


def _by_kinds(names: Sequence[str], kinds: Literal["all"] | Sequence[ModuleKind]) -> dict[str, str]:
    present = {name: kind_of(name) for name in names}
    wanted = KINDS if kinds == "all" else kinds
    for kind in () if kinds == "all" else kinds:
        if kind not in present.values():
            raise ConfigError(
                f"factors.groups.kinds: no tensor that the steps can move is of kind {kind}",
                got=", ".join(sorted(set(present.values()))) or "none",
                fix=f"Leave {kind} out, or say what it is with patterns.",
            )
    return {name: kind if kind in wanted else REST for name, kind in present.items()}


def _by_patterns(
    names: Sequence[str], patterns: Mapping[str, Sequence[str]], *, refuse_rest: bool
) -> dict[str, str]:
    groups = {}
    for name in names:
        matching = _matching(patterns, name)
        if len(matching) > 1:
            raise ConfigError(
                f"factors.groups.patterns: {name} belongs to {len(matching)} groups",
                got=", ".join(matching),
                expected="one group for every tensor",
            )
        groups[name] = matching[0] if matching else REST
    for group, globs in patterns.items():
        if group not in groups.values():
            raise ConfigError(
                f"factors.groups.patterns: no tensor that the steps can move is in group {group!r}",
                got=", ".join(globs),
                expected=f"globs on names such as {_some(names)}",
            )
    rest = [name for name, group in groups.items() if group == REST]
    if refuse_rest and rest:
        raise ConfigError(
            f"factors.groups.patterns: {len(rest)} tensors belong to no group",
            got=_some(rest),
            expected="every tensor in a group, or rest: group",
        )
    return groups


def _matching(patterns: Mapping[str, Sequence[str]], name: str) -> list[str]:
    return [group for group, globs in patterns.items() if any(fnmatchcase(name, g) for g in globs)]


def _order(rule: FactorGroups, present: set[str]) -> tuple[str, ...]:
    """The groups that there are, as the rule has them; ``rest`` comes last."""
    if rule.patterns is not None:
        order: Iterable[str] = rule.patterns
    elif rule.kinds is not None:
        order = KINDS if rule.kinds == "all" else rule.kinds
    else:
        order = sorted(present - {REST}, key=lambda name: int(re.findall(r"\d+", name)[0]))
    return tuple(name for name in (*order, REST) if name in present)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
