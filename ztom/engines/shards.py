"""What one rank of a split model holds of a chain: the parts of tensors that its layers take.

Which parts those are, the model's own loader says: it is handed tensors that are not made yet
(`ztom.blending.lazy`), and what it copies of them is noted. The first blend, with factors of zero,
reads the latest checkpoint alone, from its files. Then every rank knows its bytes, one decision is
taken for all of them (`choose_together`), and each reads its parts into the place that was chosen.
Ranks hold different parts, so a node's memory holds a chain about once, however many ranks it has.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ztom.blending.apply import Reader, blend_tensor, file_reader, refuse_not_finite
from ztom.blending.chain import Chain
from ztom.blending.lazy import LazyTensor
from ztom.blending.plan import BlendPlan, DenseTerm, TensorPlan, plan_blend
from ztom.blending.regions import Region, plan_region
from ztom.checkpoints.tensors import TensorSpec
from ztom.engines.pristine import Placement, choose_placement
from ztom.io.memory import memory_limit
from ztom.io.memory_claims import claimed_memory

#: Runs shorter than this are read with what lies between them: a disk reads whole pages anyway.
_PAGE = 4096
#: Bytes that are read at a time where runs are read with what lies between them.
_WINDOW = 2**23


@dataclass(frozen=True, slots=True)
class ShardNeed:
    """What one rank needs, and what is free where it runs.

    Attributes:
        node: Name of the node.
        nbytes: Bytes of the rank's parts, of all checkpoints together.
        device_free: Free bytes on its accelerator; None without one.
        host_free: Free bytes of the node's memory.
    """

    node: str
    nbytes: int
    device_free: int | None
    host_free: int


def choose_together(needs: Sequence[ShardNeed]) -> Placement:
    """One place for all ranks: the fastest one that none of them is short of.

    Args:
        needs: What each rank needs; those of one node share its memory.
    """
    by_node: dict[str, list[ShardNeed]] = {}
    for need in needs:
        by_node.setdefault(need.node, []).append(need)
    places = [
        choose_placement(need.nbytes, device_free=need.device_free, host_free=0) for need in needs
    ]
    if all(place == "device" for place in places):
        return "device"
    hosts = [
        choose_placement(
            sum(need.nbytes for need in group),
            device_free=None,
            host_free=min(need.host_free for need in group),
        )
        for group in by_node.values()
    ]
    return "host" if all(place == "host" for place in hosts) else "file"


@contextmanager
def placed_together(needs: Sequence[ShardNeed]) -> Iterator[Placement]:
    """The place for all ranks of an engine, for the time in which they read into it.

    Other engines of the node that do the same meanwhile do not count on the same memory.

    Args:
        needs: What each rank needs.
    """
    with claimed_memory(sum(need.nbytes for need in needs)) as free:
        yield choose_together(
            [replace(need, host_free=min(need.host_free, free)) for need in needs]
        )


def free_here(device: torch.device, nbytes: int) -> ShardNeed:
    """The need of a rank that runs in this process.

    Args:
        device: Device of the rank.
        nbytes: Bytes that it is to hold.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return ShardNeed(socket.gethostname(), nbytes, free, memory_limit().free)


class HeldShards:
    """The parts of a chain's tensors that one rank takes, held for repeated blending.

    They are streamed from the files until `place` is called.

    Args:
        chain: Chain that was opened and checked.
        device: Device that blends are made on.
        dtype: Dtype that the blend is cast to; None keeps what is stored.

    Attributes:
        placement: Place of the parts.
        bytes_read: Number of bytes that the last blend has read from the checkpoints.
        failure: What went wrong in the last blend, which went on all the same; else empty.
    """

    def __init__(self, chain: Chain, *, device: torch.device, dtype: torch.dtype | None) -> None:
        self.chain = chain
        self.placement: Placement = "file"
        self.bytes_read = 0
        self.failure = ""
        self._error: Exception | None = None
        self._device = device
        self._dtype = dtype
        self._file = file_reader(chain)
        self._regions: dict[str, dict[Region, None]] = {}  # by tensor, as they were first taken
        self._held: dict[tuple[int, str, Region | None], torch.Tensor] = {}

    def plan(self, factors: Sequence[float]) -> BlendPlan:
        """What will be added up."""
        return plan_blend(self.chain, factors, dtype=self._dtype)

    def tensors(
        self, plan: BlendPlan, *, instead: BlendPlan | None = None
    ) -> Iterator[tuple[str, LazyTensor]]:
        """The tensors of a blend, each to be made where it is copied to.

        A part that cannot be made does not raise in the middle of the model's loader, which would
        leave the model in pieces: from then on parts are those of ``instead``, or zeros, and
        `check` raises when all is loaded.

        Args:
            plan: What is added up.
            instead: Planned from the same chain, taken from the first failure on.
        """
        self.bytes_read, self.failure, self._error = 0, "", None
        for position, tensor in enumerate(plan.tensors):
            spare = None if instead is None else instead.tensors[position]
            yield tensor.name, self._lazy(tensor, spare)

    def check(self) -> None:
        """Raise what went wrong in the last blend, if something did.

        Raises:
            BlendError: A blended value is NaN or infinite at the deployed dtype.
            ChainError: A checkpoint holds such a value.
        """
        if self._error is not None:
            raise self._error

    def need(self) -> ShardNeed:
        """What this rank takes, by what its loader has taken so far."""
        nbytes = sum(count * spec.dtype.itemsize for _, spec, _, count in self._parts())
        return free_here(self._device, nbytes)

    def place(self, placement: Placement) -> None:
        """Read the parts into their place, and refuse those that hold NaN or infinity.

        Raises:
            ChainError: A part does.
        """
        self.placement = placement
        self._held.clear()
        for member, spec, region, count in self._parts():
            part = self._from_file(member, spec, region, 0, count)
            refuse_not_finite(part, spec.name, self.chain.members[member].reference)
            if placement == "device":
                self._held[member, spec.name, region] = part.to(self._device)
            elif placement == "host":
                pinned = part.pin_memory() if self._device.type == "cuda" else part
                self._held[member, spec.name, region] = pinned

    def _lazy(self, plan: TensorPlan, spare: TensorPlan | None) -> LazyTensor:
        def make(region: Region, out: torch.Tensor | None) -> torch.Tensor:
            return self._make(plan, spare, region, out)

        return LazyTensor.of(plan.shape, plan.dtype, make, self._device)

    def _make(
        self,
        plan: TensorPlan,
        spare: TensorPlan | None,
        region: Region,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        self._regions.setdefault(plan.name, {})[region] = None
        if not self.failure:
            try:
                return self._blended(plan, region, out)
            except Exception as error:  # whatever it is, every part has to come
                self.failure = f"{type(error).__name__}: {error}"
                self._error = error if spare is None else None
        if spare is not None:
            try:
                return self._blended(spare, region, out)
            except Exception as error:  # the same
                self._error = self._error or error
        if out is not None:
            return out.zero_()
        return torch.zeros(region.count, dtype=plan.dtype, device=self._device)

    def _blended(self, plan: TensorPlan, region: Region, out: torch.Tensor | None) -> torch.Tensor:
        part = plan_region(plan, region)
        if part is not None:
            return blend_tensor(part, self._reader(region), device=self._device, out=out)
        whole = blend_tensor(plan, self._reader(None), device=self._device).reshape(-1)
        shown = whole.as_strided((region.runs, region.run), (region.step, 1), region.start)
        return shown.reshape(-1) if out is None else out.copy_(shown.reshape(-1))

    def _parts(self) -> list[tuple[int, TensorSpec, Region | None, int]]:
        """Member, place in its files, part and its elements, of all that some blend reads; once."""
        parts: dict[tuple[int, str, Region | None], tuple[TensorSpec, int]] = {}
        factors = self.chain.expand([0.5**i for i in range(1, self.chain.transitions + 1)])
        for tensor in plan_blend(self.chain, factors).tensors:
            for region in self._regions.get(tensor.name, ()):
                planned = plan_region(tensor, region)
                for term in tensor.dense if planned is None else planned.dense:
                    taken = None if planned is None else region
                    count = _count(term, taken)
                    parts[term.member, term.spec.name, taken] = (term.spec, count)
                for low_rank in tensor.low_rank:
                    for spec in (low_rank.factors.a, low_rank.factors.b):
                        parts[low_rank.member, spec.name, None] = (spec, spec.count)
        return [(key[0], spec, key[2], count) for key, (spec, count) in parts.items()]

    def _reader(self, region: Region | None) -> Reader:
        """Reads elements of a region as if it were the tensor; low-rank factors always whole."""

        def read(member: int, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
            whole = region is None or self._is_factor(member, spec)
            taken = None if whole else region
            held = self._held.get((member, spec.name, taken))
            if held is not None:
                part = held[start:end]
            else:
                limit = spec.count if taken is None else taken.count
                part = self._from_file(member, spec, taken, start, min(end, limit))
            self.bytes_read += part.numel() * spec.dtype.itemsize
            return part.to(self._device, non_blocking=True)

        return read

    def _is_factor(self, member: int, spec: TensorSpec) -> bool:
        return self.chain.adapters[member] is not None

    def _from_file(
        self, member: int, spec: TensorSpec, region: Region | None, start: int, end: int
    ) -> torch.Tensor:
        """Elements [start, end) of a region, or of the tensor, from the checkpoint's files."""
        if region is None or region.runs == 1:
            first = 0 if region is None else region.start
            return self._file(member, spec, first + start, first + end)
        out = torch.empty(end - start, dtype=spec.dtype, device="cpu")
        apart = region.run * spec.dtype.itemsize >= _PAGE
        rows = 1 if apart else max(1, _WINDOW // (region.step * spec.dtype.itemsize))
        done = start
        while done < end:
            row, column = divmod(done, region.run)
            last = min(region.runs, row + rows) if column == 0 else row + 1
            stop = min(end, last * region.run)
            first = region.start + row * region.step
            if last - row == 1:
                shift = first - row * region.run
                piece = self._file(member, spec, done + shift, stop + shift)
            else:
                window = self._file(
                    member, spec, first, first + (last - row - 1) * region.step + region.run
                )
                shown = window.as_strided((last - row, region.run), (region.step, 1))
                piece = shown.reshape(-1)[: stop - done]
            out[done - start : stop - start] = piece
            done = stop
        return out


def _count(term: DenseTerm, region: Region | None) -> int:
    """Elements that a member has of a region; one with fewer rows has fewer."""
    if region is None:
        return term.spec.count
    if region.runs > 1:
        return region.count
    return max(0, min(region.count, term.spec.count - region.start))
