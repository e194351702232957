"""A chain of checkpoints, and the coefficients that scaling factors give its members.

With ``delta_i = W_i - W_(i-1)`` a *sequence* W_0 ... W_n is blended as
``W(alpha) = W_n + sum_i alpha_i * delta_i``; with ``delta_i = W_i - W_0`` *siblings* of one base
are blended as ``W(alpha) = W_latest + sum_i alpha_i * delta_i`` (task arithmetic, Ilharco et al.
2023). Both are sums over members, ``W(alpha) = sum_j c_j * W_j`` with ``sum_j c_j = 1``, and it is
these coefficients that are applied: a factor of 0 or -1 then gives a coefficient of exactly 1 or 0,
so nothing is rounded where nothing changes. With groups of tensors (`ztom.blending.groups`) there
is a factor for each step and group, and coefficients by group. Where a member lacks rows that
others have, steps from and to it have no delta there (`ztom.blending.rows`). Comparing the members
is `ztom.blending.fit`, and how a chain is written in a file `ztom.blending.chain_file`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ztom.blending.alignment import align, derived_notes
from ztom.blending.chain_file import ChainConfig, Topology, read_chain_file
from ztom.blending.differences import find_differences
from ztom.blending.fit import check_fit
from ztom.blending.groups import GroupAssignment, factor_labels, transition_names
from ztom.blending.integers import check_integers
from ztom.blending.rows import refuse_adapted_rows, row_notes
from ztom.blending.vocabularies import check_tokenizers
from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ztom.checkpoints.lora import Adapter, open_adapter
from ztom.checkpoints.reference import is_address, name_of
from ztom.errors import ChainError, FactorError
from ztom.settings import Settings


@dataclass(frozen=True)
class Chain:
    """Checkpoints that fit together, opened but not read.

    Attributes:
        members: Checkpoints of the chain, base first.
        adapters: LoRA factors over the base of each member, or None for full weights.
        topology: Definition of the steps.
        latest: Position of the checkpoint that steps are added to, from 0.
        tags: Name of each member.
        notes: What was passed over or put right so that the members fit, a sentence each.
        allow_config_differences: Keys of ``config.json`` in which members were allowed to differ.
        allow_tokenizer_differences: Whether tokenizers were allowed to split texts differently.
        groups: Groups of tensors that have factors of their own; None for one factor a step.
    """

    members: tuple[Checkpoint, ...]
    adapters: tuple[Adapter | None, ...]
    topology: Topology
    latest: int
    tags: tuple[str, ...]
    notes: tuple[str, ...] = ()
    allow_config_differences: tuple[str, ...] = ()
    allow_tokenizer_differences: bool = False
    groups: GroupAssignment | None = None

    @property
    def transitions(self) -> int:
        """How many steps the chain has."""
        return len(self.members) - 1

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups that have factors of their own; none where a step has one factor."""
        return () if self.groups is None else self.groups.names

    @property
    def factor_count(self) -> int:
        """How many scaling factors a blend takes: one per step, or per step and group."""
        return self.transitions * max(1, len(self.group_names))

    @property
    def factor_names(self) -> tuple[str, ...]:
        """A name per factor, step by step and in a step group by group."""
        return factor_labels(self.names, self.group_names)

    @property
    def base(self) -> Checkpoint:
        """The checkpoint that everything was trained from."""
        return self.members[0]

    @property
    def reference(self) -> Checkpoint:
        """The checkpoint that alpha = 0 gives back."""
        return self.members[self.latest]

    @property
    def model(self) -> int:
        """Position of the full model whose tensors, head and configuration a blend has.

        It is the latest checkpoint, or the base where that is an adapter.
        """
        return self.latest if self.adapters[self.latest] is None else 0

    @property
    def is_adapter_chain(self) -> bool:
        """Whether every iteration is a LoRA adapter over the base."""
        return all(adapter is not None for adapter in self.adapters[1:])

    @property
    def names(self) -> tuple[str, ...]:
        """A name per transition."""
        return transition_names(self.tags, self.topology)

    @property
    def places(self) -> tuple[str, ...]:
        """Address of each member, pinned; the name alone of what lies on this machine."""
        return tuple(
            member.reference if is_address(member.reference) else tag
            for member, tag in zip(self.members, self.tags, strict=True)
        )

    @cached_property
    def digest(self) -> str:
        """sha256 over the topology and the members' digests, in order."""
        content = {
            "topology": self.topology,
            "latest": self.latest,
            "members": [member.digest for member in self.members],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _repr_html_(self) -> str:
        from ztom.pages.notebook import NotebookTable, notebook_panel

        facts = {
            "topology": self.topology,
            "factor 0 gives": self.tags[self.latest],
            "checkpoints": "a base and LoRA adapters" if self.is_adapter_chain else "full weights",
        }
        rows = [
            (str(position), tag, member.digest[:12], member.reference)
            for position, (tag, member) in enumerate(zip(self.tags, self.members, strict=True))
        ]
        table = NotebookTable(("", "checkpoint", "sha256", "reference"), rows)
        return notebook_panel(f"chain {self.digest[:12]}", facts, table)

    def check_factors(self, factors: Sequence[float]) -> tuple[float, ...]:
        """The factors as floats.

        Raises:
            FactorError: Not one finite number per transition, or per transition and group.
        """
        if len(factors) != self.factor_count:
            per = " and group" if self.groups is not None else ""
            raise FactorError(
                "wrong number of scaling factors",
                got=len(factors),
                expected=f"{self.factor_count}, one per transition{per} "
                f"({', '.join(self.factor_names)})",
            )
        checked = tuple(float(factor) for factor in factors)
        for position, factor in enumerate(checked):
            if not math.isfinite(factor):
                raise FactorError(
                    f"scaling factor {position} is not a finite number",
                    got=factor,
                    expected="a number such as -0.05",
                )
        return checked

    def expand(self, step_factors: Sequence[float]) -> tuple[float, ...]:
        """All factors of a blend in which every group of a step has the same one.

        Args:
            step_factors: One factor per transition.
        """
        width = max(1, len(self.group_names))
        return tuple(float(factor) for factor in step_factors for _ in range(width))

    def step_factors(self, factors: Sequence[float], name: str) -> tuple[float, ...]:
        """The factors of one tensor, one per transition; zeros where no step can change it.

        Args:
            factors: All factors of the blend, checked.
            name: Name of the tensor in the latest checkpoint.
        """
        if self.groups is None:
            return tuple(factors)
        group = self.groups.tensors.get(name)
        if group is None:
            return (0.0,) * self.transitions
        return tuple(factors[group :: len(self.groups.names)])

    def coefficients(self, factors: Sequence[float]) -> tuple[float, ...]:
        """The coefficient of each member in the blend; they sum to 1 in every group.

        Args:
            factors: Scaling factors, one per transition, or per transition and group.

        Returns:
            One per member, or per member and group: member by member, in a member group by group.

        Raises:
            FactorError: Not one finite number per transition, or per transition and group.
        """
        alpha, width = self.check_factors(factors), max(1, len(self.group_names))
        columns = [self.step_coefficients(alpha[group::width]) for group in range(width)]
        return tuple(value for row in zip(*columns, strict=True) for value in row)

    def step_coefficients(
        self, alpha: Sequence[float], *, holders: Collection[int] | None = None
    ) -> tuple[float, ...]:
        """The coefficient of each member in the blend of one tensor; they sum to 1.

        Args:
            alpha: Factors of the tensor, one per transition.
            holders: Positions of the members that have what is blended, the latest among them; a
                step from or to another one changes nothing. All of them when None.
        """
        coefficients = [0.0] * len(self.members)
        coefficients[self.latest] = 1.0
        for step, factor in enumerate(alpha, start=1):
            before = step - 1 if self.topology == "sequence" else 0
            if holders is not None and not {before, step} <= set(holders):
                continue
            coefficients[step] += factor
            coefficients[before] -= factor
        return tuple(coefficients)


def pinned(config: ChainConfig, chain: Chain) -> ChainConfig:
    """The chain for another process: at the commits and versions that were opened here.

    Args:
        config: Chain as it was written, with absolute references.
        chain: The chain, opened.
    """
    members = [
        member.model_copy(update={"reference": opened.reference})
        for member, opened in zip(config.checkpoints, chain.members, strict=True)
    ]
    return config.model_copy(update={"checkpoints": tuple(members)})


def load_chain(config: ChainConfig | Path, *, settings: Settings) -> Chain:
    """Open every member and check that they fit together; no weights are read.

    Raises:
        ChainError: The chain is malformed, or (`IncompatibleChainError`) its members do not fit.
        CheckpointError: A member cannot be used.
    """
    if isinstance(config, Path):
        config = read_chain_file(config)
    members = tuple(
        open_checkpoint(m.reference, settings=settings, sha256=m.sha256) for m in config.checkpoints
    )
    if members[0].kind != "full":
        raise ChainError(
            "the first checkpoint of a chain must be a full model",
            got=f"an adapter ({members[0].reference})",
            fix="Put the adapters' base model first.",
        )
    latest = len(members) - 1 if config.latest is None else config.latest
    model = latest if members[latest].kind == "full" else 0
    derived = derived_notes(members, model=model)
    members, renamed = align(members, model=model)
    adapters = tuple(
        open_adapter(member, members[0]) if member.kind == "adapter" else None for member in members
    )
    check_fit(
        members,
        latest=members[model],
        allow_dtype_cast=config.allow_dtype_cast,
        allow_config_differences=config.allow_config_differences,
    )
    check_integers(members)
    notes = (*(note for member in members for note in member.notes), *renamed, *derived)
    tags = tuple(
        m.tag or name_of(m.reference) or str(position)
        for position, m in enumerate(config.checkpoints)
    )
    refuse_adapted_rows(members, adapters, members[model].tensors)
    notes = (
        *notes,
        *row_notes(members, tags, model=model),
        *find_differences(members, tags, latest=latest, model=model),
        *check_tokenizers(
            members,
            tags,
            latest=latest,
            model=model,
            allow_differences=config.allow_tokenizer_differences,
        ),
    )
    return Chain(
        members,
        adapters,
        config.topology,
        latest,
        tags,
        tuple(dict.fromkeys(notes)),
        allow_config_differences=config.allow_config_differences,
        allow_tokenizer_differences=config.allow_tokenizer_differences,
    )
