"""What a chain takes on a machine: what fits where, seconds a trial, cost, variants a GPU holds.

Everything is arithmetic over sizes and bandwidths, an upper bound on speed:

    blend  = bytes of the checkpoints / bandwidth of their place
             + bytes of the weights / bandwidth of the device         (they are written)
    answer = steps * bytes of the weights / bandwidth of the device   (each step reads them all)
    steps  = new tokens * ceil(stimuli / sequences in one batch)

with one engine over as many GPUs as it takes to hold the model, each of which does its share. The
prompts' own computation is not in it, nor starting up, nor scoring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ztom.blending.chain import Chain
from ztom.engines.device_dtype import settle_dtype
from ztom.engines.device_plan import LEAST_CACHE, USABLE, plan_device
from ztom.engines.machines import Machine
from ztom.engines.pristine import Placement, pristine_bytes

#: Share of a host's memory that held checkpoints may take, as an engine chooses.
HOST_SHARE = 0.6
#: Bytes of a weight by its dtype.
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ChainSize:
    """How much a chain is.

    Attributes:
        elements: Number of weights of the model that is blended.
        pristine: Bytes of all checkpoints that a blend reads.
        stored: Dtype that the weights are stored in.
        model_type: The checkpoints' ``model_type``.
    """

    elements: int
    pristine: int
    stored: str
    model_type: str = ""


@dataclass(frozen=True)
class TrialWork:
    """What one trial asks of an engine.

    Attributes:
        stimuli: Number of stimuli.
        new_tokens: Tokens that are generated for each; 0 where answers are only scored.
        batch: Sequences in one batch.
    """

    stimuli: int
    new_tokens: int
    batch: int = 64

    @property
    def steps(self) -> int:
        """Times that a trial reads all weights; once a batch where nothing is generated."""
        return max(1, self.new_tokens) * math.ceil(self.stimuli / self.batch)


@dataclass(frozen=True)
class PlanRow:
    """One way to run the search on the machine.

    Attributes:
        placement: Place of the checkpoints.
        fits: Whether they fit there.
        needed: Bytes that they take there, of one engine.
        room: Bytes that there are for them.
        blend_s: Seconds of one blend; None where a bandwidth is not known.
        trial_s: Seconds of one trial; None likewise.
    """

    placement: Placement
    fits: bool
    needed: int
    room: int
    blend_s: float | None
    trial_s: float | None


@dataclass(frozen=True)
class MachinePlan:
    """What a chain takes on a machine.

    Attributes:
        dtype: Dtype that is deployed.
        note: Why it is not the stored one; else empty.
        weights: Bytes of the weights in it.
        split: GPUs that one engine is split over; 0 where the machine cannot hold the model.
        engines: Engines that the machine has room for, side by side.
        variants: Variants that one GPU holds at once, each with an engine of its own; 0 where a
            variant takes more than one GPU.
        rows: The places of the checkpoints, fastest first.
    """

    dtype: str
    note: str
    weights: int
    split: int
    engines: int
    variants: int
    rows: tuple[PlanRow, ...]

    @property
    def best(self) -> PlanRow | None:
        """The fastest place that fits; None where nothing does."""
        return next((row for row in self.rows if row.fits), None) if self.split else None


def chain_size(chain: Chain) -> ChainSize:
    """The sizes of a chain that was opened."""
    model = chain.members[chain.model]
    return ChainSize(
        elements=sum(spec.count for spec in model.tensors.values()),
        pristine=pristine_bytes(chain),
        stored=str(model.dtype).removeprefix("torch."),
        model_type=str(model.config.get("model_type", "")),
    )


def plan_machine(
    chain: ChainSize,
    machine: Machine,
    work: TrialWork,
    *,
    dtype: str = "auto",
    file_rate: float | None = None,
) -> MachinePlan:
    """TrialWork out what fits and what it takes.

    Args:
        chain: Sizes of the chain.
        machine: The machine.
        work: What a trial asks.
        dtype: Dtype to deploy in; ``auto`` is the stored one, where the device has it.
        file_rate: Bytes a second that are read from where the checkpoints are; None: not known.

    Raises:
        EngineError: The device does not compute in the dtype that was named.
    """
    settled, note = settle_dtype(
        dtype, stored=chain.stored, model_type=chain.model_type, gpu=machine.gpu
    )
    settled = chain.stored if settled == "auto" else settled
    weights = chain.elements * ITEM_BYTES[settled]
    split = _split(weights, machine)
    engines = 0 if not split else machine.gpus // split if machine.gpu else 1
    rows = tuple(_rows(chain, machine, work, weights, max(1, split), max(1, engines), file_rate))
    return MachinePlan(settled, note, weights, split, engines, _variants(weights, machine), rows)


def _split(weights: int, machine: Machine) -> int:
    """GPUs of one engine: the fewest, a power of two, that hold the model; 1 on a CPU."""
    if machine.gpu is None:
        return int(weights + LEAST_CACHE <= HOST_SHARE * machine.memory)
    ranks = 1
    while ranks <= machine.gpus:
        if plan_device(machine.gpu.memory, weights=weights // ranks, pristine=0) is not None:
            return ranks
        ranks *= 2
    return 0


def _variants(weights: int, machine: Machine) -> int:
    room = machine.memory if machine.gpu is None else machine.gpu.memory
    return int(USABLE * room) // (weights + LEAST_CACHE)


def _rows(
    chain: ChainSize,
    machine: Machine,
    work: TrialWork,
    weights: int,
    split: int,
    engines: int,
    file_rate: float | None,
) -> list[PlanRow]:
    gpu = machine.gpu
    speed = machine.bandwidth if gpu is None else gpu.bandwidth * split
    host = int(HOST_SHARE * machine.memory)
    held = host - weights - LEAST_CACHE if gpu is None else host
    places: list[tuple[Placement, int, float | None]] = [
        ("host", held, speed if gpu is None else gpu.link * split),
        # files are read once, however many GPUs wait for them
        ("file", 2**63 - 1, file_rate),
    ]
    if gpu is not None:
        beside = split * int(USABLE * gpu.memory) - weights - split * LEAST_CACHE
        places.insert(0, ("device", max(0, beside), speed))
    rows = []
    for place, room, rate in places:
        # engines of one machine have its memory, and its files' bandwidth, together
        needed = chain.pristine * (engines if place == "host" else 1)
        blend_s = _seconds(chain.pristine, rate, weights, speed)
        answer_s = None if speed is None else work.steps * weights / speed
        trial_s = None if blend_s is None or answer_s is None else blend_s + answer_s
        rows.append(PlanRow(place, needed <= room, needed, room, blend_s, trial_s))
    return rows


def _seconds(pristine: int, rate: float | None, weights: int, speed: float | None) -> float | None:
    if rate is None or speed is None:
        return None
    return pristine / rate + weights / speed
