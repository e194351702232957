"""Brings the members of a chain under one set of tensor names: those of the latest checkpoint.

One model is stored under several: without the prefix ``model.`` or ``transformer.`` where the bare
model was saved, with other nestings by older versions of transformers, with experts one by one or
stacked. What is what follows from transformers' own rules (`ztom.checkpoints.own_names`), applied
to both sides: the rows of a tensor are numbered, the numbers go through the conversion, and what
comes out says which row of the member is which of the latest. No weights are read, and nothing is
changed but where a blend looks for them. A row is a tensor's last dimension, so what moves elements
within rows (a transposed weight) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ztom.blending.fit import weight_names
from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import find_head, is_head, says_tied
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import IncompatibleChainError

if TYPE_CHECKING:
    from ztom.checkpoints.own_names import OwnNames, TensorGroup


def align(
    members: Sequence[Checkpoint], *, model: int
) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The members with the names of one of them, and what was renamed.

    Tensors that have no counterpart keep their names; `ztom.blending.fit` refuses them.

    Args:
        members: Checkpoints that were opened, base first; adapters are passed over.
        model: Position of the full member whose names a blend has.

    Returns:
        The members, and a sentence for each that was stored under other names.

    Raises:
        IncompatibleChainError: A member stores the same weights in another arrangement, which
            names and rows do not tell.
    """
    latest = members[model]
    wanted = {name for name in weight_names(latest) if not is_head(name)}
    others = [
        position
        for position, member in enumerate(members)
        if member.kind == "full" and wanted - weight_names(member)
    ]
    if not others:
        return tuple(members), ()
    from ztom.checkpoints.own_names import OwnNames, model_of

    built = model_of(latest.config)
    if built is None:
        return tuple(members), ()
    own = OwnNames(built)
    aligned, notes = list(members), []
    for position in others:
        aligned[position], example = _renamed(own, latest, members[position])
        if example is not None:
            notes.append(
                f"{members[position].reference} stores its tensors under other names than "
                f"{latest.reference} ({example}); they were matched by transformers' rules"
            )
    return tuple(aligned), tuple(notes)


def derived_notes(members: Sequence[Checkpoint], *, model: int) -> tuple[str, ...]:
    """A sentence about the buffers that are not blended, whoever stores them; none without any.

    Args:
        members: Checkpoints that were opened, base first.
        model: Position of the full member whose tensors a blend has.
    """
    full = [member for member in members if member.kind == "full"]
    names = sorted(
        {n for member in full for n, s in member.tensors.items() if is_derived(n, s.shape)}
    )
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    kept = set(names) & members[model].tensors.keys()
    which = f"{len(kept)} of {members[model].reference} are kept" if kept else "none is written"
    return (f"{names[0]}{more} are computed by the model and not blended; {which}",)


def _renamed(
    own: OwnNames, latest: Checkpoint, member: Checkpoint
) -> tuple[Checkpoint, str | None]:
    """The member under the latest one's names, and one renaming as an example."""
    ours, theirs = (own.arrange(weight_names(side)) for side in (latest, member))
    rows = _Rows(member.tensors)
    places: dict[str, TensorGroup | torch.Tensor] = {}
    for group in theirs.groups:
        if group.converter is None:
            places[group.own] = group
        else:
            places |= _converted(own, group, rows, member)
    tensors = {name: member.tensors[name] for name in theirs.unexpected}
    for group in ours.groups:
        tensors |= _places_of(own, group, latest, rows, places)
    example = next((n for n in sorted(tensors) if n not in member.tensors), None)
    if example is None:
        return member, None
    tied = member.tied or (says_tied(member.config) is True and find_head(tensors) is None)
    first = tensors[example].parts or (tensors[example],)
    source = next(n for n, s in member.tensors.items() if _starts_at(s, first[0]))
    changed = replace(member, tensors=dict(sorted(tensors.items())), tied=tied)
    return changed, f"{source} is {example}"


def _starts_at(spec: TensorSpec, part: TensorSpec) -> bool:
    return spec.file == part.file and spec.offset <= part.offset < spec.offset + spec.nbytes


def _places_of(
    own: OwnNames,
    group: TensorGroup,
    latest: Checkpoint,
    rows: _Rows,
    places: Mapping[str, TensorGroup | torch.Tensor],
) -> dict[str, TensorSpec]:
    """Where the member holds each tensor that the latest one stores for a group."""
    if group.converter is None:
        name, whole = group.stored[0], places.get(group.own)
        if whole is None:
            return {}
        if not isinstance(whole, torch.Tensor):
            return {name: replace(rows.tensors[whole.stored[0]], name=name)}
    local = _Rows({name: latest.tensors[name] for name in group.stored})
    where = torch.full((local.end,), -1, dtype=torch.int64)
    for name, ids in _converted(own, group, local, latest).items():
        place = places.get(name)
        if place is None:
            continue
        if not isinstance(place, torch.Tensor):
            place = rows.ids(place.stored[0])
        if place.numel() == ids.numel():
            where[ids.reshape(-1)] = place.reshape(-1)
    specs = {}
    for name in group.stored:
        start = local.starts[name]
        ids = where[start : start + local.count(name)]
        if ids.numel() and int(ids.min()) >= 0:
            specs[name] = rows.gather(ids, latest.tensors[name])
    return specs


def _converted(
    own: OwnNames, group: TensorGroup, rows: _Rows, checkpoint: Checkpoint
) -> dict[str, torch.Tensor]:
    """Numbers of the stored rows that the rows of the model's tensors are, by own name."""
    try:
        made = own.convert(group, {name: rows.ids(name) for name in group.stored})
    except Exception as error:  # transformers raises whatever its conversions raise
        raise _other_arrangement(checkpoint, group.stored[0]) from error
    for name, ids in made.items():
        shape = own.state[name].shape
        expected = (*shape[:-1], 1) if len(shape) > 1 else shape
        if tuple(ids.shape) != tuple(expected):
            raise _other_arrangement(checkpoint, group.stored[0])
    return made


class _Rows:
    """Numbers the rows of tensors, each tensor's from its start on, with a gap between two."""

    def __init__(self, tensors: Mapping[str, TensorSpec]) -> None:
        self.tensors = tensors
        self.starts: dict[str, int] = {}
        self.end = 0
        for name in tensors:
            self.starts[name] = self.end
            self.end += self.count(name) + 1
        self._names = list(tensors)
        self._all_starts = torch.tensor(list(self.starts.values()))

    def count(self, name: str) -> int:
        """How many rows a tensor has."""
        spec = self.tensors[name]
        return spec.count // _width(spec) if spec.count else 0

    def ids(self, name: str) -> torch.Tensor:
        """The numbers of a tensor's rows, int64, its shape with a last dimension of one."""
        shape = self.tensors[name].shape
        start = self.starts[name]
        numbers = torch.arange(start, start + self.count(name))
        return numbers.reshape((*shape[:-1], 1) if len(shape) > 1 else shape)

    def gather(self, ids: torch.Tensor, like: TensorSpec) -> TensorSpec:
        """The tensor whose rows are these, int64 [rows], of the name and shape of ``like``."""
        breaks = (ids[1:] != ids[:-1] + 1).nonzero()[:, 0] + 1
        edges = [0, *breaks.tolist(), ids.numel()]
        first = ids[torch.tensor(edges[:-1])]
        owners = torch.searchsorted(self._all_starts, first, right=True) - 1
        parts: list[TensorSpec] = []
        for owner, row, begin, end in zip(
            owners.tolist(), first.tolist(), edges[:-1], edges[1:], strict=True
        ):
            spec = self.tensors[self._names[owner]]
            width = _width(spec)
            row_bytes = width * spec.dtype.itemsize
            parts.append(
                replace(
                    spec,
                    shape=((end - begin) * width,),
                    offset=spec.offset + (row - self.starts[self._names[owner]]) * row_bytes,
                    nbytes=(end - begin) * row_bytes,
                )
            )
        count = sum(part.count for part in parts)
        return replace(
            parts[0],
            name=like.name,
            shape=like.shape if count == like.count else (count,),
            nbytes=count * parts[0].dtype.itemsize,
            parts=tuple(parts) if len(parts) > 1 else (),
        )


def _width(spec: TensorSpec) -> int:
    """Elements of a row."""
    return spec.shape[-1] if len(spec.shape) > 1 else 1


def _other_arrangement(checkpoint: Checkpoint, name: str) -> IncompatibleChainError:
    return IncompatibleChainError(
        f"{checkpoint.reference} arranges {name} as no other member of the chain does",
        expected="the arrangement of the latest checkpoint, or one of whole rows",
        fix="Load it with transformers and save it again, as the latest one was saved.",
    )
