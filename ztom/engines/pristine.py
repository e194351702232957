"""Where an engine keeps the pristine checkpoints of a chain, and how it blends from them.

Every blend starts from the checkpoints, so they are kept where reading them is fastest: on the
device, else in host memory, else they stay in their files and are streamed for each blend. Files
are read, not mapped: a file that is cut short while it is mapped kills the process, while a short
read is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch

from ztom.blending.apply import blend_tensor, file_reader, refuse_not_finite
from ztom.blending.chain import Chain
from ztom.blending.group_assignment import regroup_chain
from ztom.blending.groups import GroupedFactors
from ztom.blending.plan import BlendPlan, TensorPlan, plan_blend
from ztom.checkpoints.tensors import TensorSpec
from ztom.io.memory_claims import claimed_memory

Placement = Literal["device", "host", "file"]

#: The share of free memory that held checkpoints may take.
_SHARE = 0.6


def choose_placement(
    nbytes: int, *, device_free: int | None, host_free: int, share: float = _SHARE
) -> Placement:
    """Where checkpoints of this size go.

    Args:
        nbytes: Bytes of all pristine tensors.
        device_free: Free bytes on the accelerator; None without one.
        host_free: Free bytes of host memory.
        share: The share of free memory that may be taken.
    """
    if device_free is not None and nbytes <= share * device_free:
        return "device"
    return "host" if nbytes <= share * host_free else "file"


class HeldChain:
    """The pristine tensors of a chain, held for repeated blending.

    Args:
        chain: Chain that was opened and checked.
        device: Device that the blend is computed on.
        dtype: Dtype that the blend is cast to; None keeps what is stored.
        placement: Place of the checkpoints in memory; chosen by free memory when None.

    Attributes:
        bytes_read: Number of bytes that the last blend has read from the checkpoints.
        failure: What went wrong in the last blend that went on with another one; else empty.

    Raises:
        ChainError: A checkpoint holds NaN or infinity.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        placement: Placement | None = None,
    ) -> None:
        self.chain = chain
        self._device = device
        self._dtype = dtype
        self.bytes_read = 0
        self.failure = ""
        self._file = file_reader(chain)
        specs = _pristine(chain)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        nbytes = pristine_bytes(chain)
        self._held: dict[tuple[int, str], torch.Tensor] = {}
        with claimed_memory(nbytes) as host_free:
            self.placement: Placement = placement or choose_placement(
                nbytes, device_free=free, host_free=host_free
            )
            self._hold(specs)

    def _hold(self, specs: Sequence[tuple[int, TensorSpec]]) -> None:
        chain, device = self.chain, self._device
        for member, spec in specs:
            tensor = chain.members[member].read(spec.name)
            refuse_not_finite(tensor, spec.name, chain.members[member].reference)
            if self.placement == "device":
                self._held[member, spec.name] = tensor.to(device).reshape(-1)
            elif self.placement == "host":
                pinned = tensor.pin_memory() if device.type == "cuda" else tensor
                self._held[member, spec.name] = pinned.reshape(-1)

    def plan(self, factors: Sequence[float]) -> BlendPlan:
        """What will be added up."""
        return plan_blend(self.chain, factors, dtype=self._dtype)

    def plan_grouped(self, factors: GroupedFactors) -> BlendPlan:
        """What will be added up, with the groups that these factors are of.

        Raises:
            ConfigError: The groups are not of this chain.
        """
        chain = regroup_chain(replace(self.chain, groups=None), factors.groups)
        return plan_blend(chain, factors.factors, dtype=self._dtype)

    def blend(
        self, plan: BlendPlan, *, instead: BlendPlan | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The blended tensors on the device, one at a time; `bytes_read` counts what it took.

        A tensor may be a pristine one itself: the caller copies it and never writes to it.

        Args:
            plan: What is added up.
            instead: Planned from the same chain: where the blend fails, the tensors that are left
                come from this one, so that each comes once, and `failure` says what happened.

        Raises:
            BlendError: A blended value is NaN or infinite at the deployed dtype, in ``instead``
                too where that is given.
        """
        self.bytes_read, self.failure = 0, ""
        for position, tensor in enumerate(plan.tensors):
            spare = None if instead is None else instead.tensors[position]
            yield tensor.name, self._blended(tensor, spare)

    @property
    def device(self) -> torch.device:
        """Device that blends are computed on."""
        return self._device

    def blend_one(self, plan: TensorPlan) -> torch.Tensor:
        """One tensor, as planned, on the device; it may be a pristine one itself."""
        return blend_tensor(plan, self._read, device=self._device)

    def _blended(self, tensor: TensorPlan, spare: TensorPlan | None) -> torch.Tensor:
        """The tensor, or the spare one from the first failure on."""
        if spare is None:
            return blend_tensor(tensor, self._read, device=self._device)
        if not self.failure:
            try:
                return blend_tensor(tensor, self._read, device=self._device)
            except Exception as error:  # whatever it is, every tensor has to come
                self.failure = f"{type(error).__name__}: {error}"
        return blend_tensor(spare, self._read, device=self._device)

    def _read(self, member: int, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
        self.bytes_read += (end - start) * spec.dtype.itemsize
        held = self._held.get((member, spec.name))
        part = self._file(member, spec, start, end) if held is None else held[start:end]
        return part.to(self._device, non_blocking=True)


def pristine_bytes(chain: Chain) -> int:
    """Bytes of all tensors that blends of a chain read."""
    return sum(spec.nbytes for _, spec in _pristine(chain))


def _pristine(chain: Chain) -> list[tuple[int, TensorSpec]]:
    """Every tensor that some blend of the chain reads, once."""
    everything = plan_blend(chain, chain.expand([0.5**i for i in range(1, chain.transitions + 1)]))
    specs: dict[tuple[int, str], TensorSpec] = {}
    for tensor in everything.tensors:
        for term in tensor.dense:
            specs[term.member, term.spec.name] = term.spec
        for low_rank in tensor.low_rank:
            for spec in (low_rank.factors.a, low_rank.factors.b):
                specs[low_rank.member, spec.name] = spec
    return [(member, spec) for (member, _), spec in sorted(specs.items(), key=lambda kv: kv[0])]
