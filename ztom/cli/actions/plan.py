"""What ``ztom plan`` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import read_chain_file, require_members
from ztom.cli.console import plain_console, print_document
from ztom.engines.device_plan import USABLE
from ztom.engines.gpus import GB, GPUS, Gpu
from ztom.engines.machine_plan import MachinePlan, PlanRow, TrialWork, chain_size, plan_machine
from ztom.engines.machines import MACHINES, Machine
from ztom.errors import ConfigError
from ztom.settings import Settings

#: Seconds of an hour, which prices are for.
_HOUR_S = 3600.0


@dataclass(frozen=True)
class MachineOptions:
    """The machine as it was typed.

    Attributes:
        machine: A machine type; None where it is described.
        gpu: Kind of GPU; None for none.
        gpus: Number of them.
        memory_gb: Gigabytes of the host's memory.
        bandwidth_gb_s: Gigabytes a second of the host's memory.
        file_gb_s: Gigabytes a second of files.
        price: Price of the machine an hour, in whatever currency.
    """

    machine: str | None
    gpu: str | None
    gpus: int
    memory_gb: float | None
    bandwidth_gb_s: float | None
    file_gb_s: float | None
    price: float | None


def plan_command(
    file: Path,
    options: MachineOptions,
    *,
    stimuli: int,
    new_tokens: int,
    trials: int,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the plan of a chain on a machine."""
    machine = machine_of(options)
    config, settings = read_chain_file(file), Settings()
    require_members(config, settings=settings)
    chain = load_chain(config, settings=settings)
    size = chain_size(chain)
    rate = None if options.file_gb_s is None else options.file_gb_s * GB
    plan = plan_machine(size, machine, TrialWork(stimuli, new_tokens), dtype=dtype, file_rate=rate)
    hours = _hours(plan, trials)
    cost = None if hours is None or options.price is None else hours * options.price
    if as_json:
        print_document(
            {
                "machine": machine.name,
                "computed": True,
                "pristine_bytes": size.pristine,
                **asdict(plan),
                "search_hours": hours,
                "price_per_hour": options.price,
                "search_cost": cost,
            }
        )
        return
    _print(plan, machine, size.pristine, trials, hours, cost)


def machine_of(options: MachineOptions) -> Machine:
    """The machine that was named or described.

    Raises:
        ConfigError: There is no such type or GPU, or too little was said.
    """
    if options.machine is not None:
        if options.machine not in MACHINES:
            raise ConfigError(
                "the machine type is not known",
                got=options.machine,
                expected=", ".join(MACHINES),
                fix="Describe another one with --gpu, --gpus and --memory-gb.",
            )
        return MACHINES[options.machine]
    if options.memory_gb is None:
        raise ConfigError(
            "a plan is for a machine",
            expected="--machine, or --memory-gb with or without --gpu",
            fix="See ztom plan --help.",
        )
    bandwidth = None if options.bandwidth_gb_s is None else options.bandwidth_gb_s * GB
    gpu = None if options.gpu is None else _gpu(options.gpu)
    gpus = 0 if gpu is None else options.gpus
    name = "this machine" if gpu is None else f"{gpus} x {gpu.name}"
    return Machine(name, gpu, gpus, int(options.memory_gb * GB), bandwidth)


def _gpu(name: str) -> Gpu:
    if name not in GPUS:
        raise ConfigError("the GPU is not known", got=name, expected=", ".join(GPUS))
    return GPUS[name]


def _hours(plan: MachinePlan, trials: int) -> float | None:
    best = plan.best
    if best is None or best.trial_s is None or not plan.engines:
        return None
    return trials * best.trial_s / plan.engines / _HOUR_S


def _print(
    plan: MachinePlan,
    machine: Machine,
    pristine: int,
    trials: int,
    hours: float | None,
    cost: float | None,
) -> None:
    console = plain_console()
    console.print(f"{machine.name}: computed from sizes and bandwidths, not measured")
    console.print(
        f"weights {plan.weights / GB:.3g} GB in {plan.dtype}, checkpoints {pristine / GB:.3g} GB"
    )
    if plan.note:
        console.print(plan.note, soft_wrap=True)
    if not plan.split:
        console.print(_too_large(plan, machine), soft_wrap=True)
        return
    engine = f"one engine over {plan.split} GPUs" if plan.split > 1 else "an engine a GPU"
    console.print(
        f"{plan.engines} engines side by side ({engine if machine.gpu else 'on the CPU'}); "
        f"{_variants(plan)}"
    )
    table = Table(box=None, pad_edge=False)
    for title in ("checkpoints in", "fits", "take", "of", "blend", "trial"):
        table.add_column(title)
    for row in plan.rows:
        table.add_row(*_cells(row))
    console.print(table)
    if hours is not None:
        price = "" if cost is None else f", {cost:.3g} at the price that was given"
        console.print(f"{trials} trials: {hours:.3g} hours{price}")


def _too_large(plan: MachinePlan, machine: Machine) -> str:
    if machine.gpu is None:
        return f"the model does not fit into {machine.memory / GB:.3g} GB: take more memory"
    room = USABLE * machine.gpus * machine.gpu.memory
    return (
        f"the model does not fit: of {machine.gpus} x {machine.gpu.memory / GB:.3g} GB "
        f"{room / GB:.3g} GB can be planned with; take more or larger GPUs"
    )


def _variants(plan: MachinePlan) -> str:
    if not plan.variants:
        return "a variant takes more than one GPU"
    return f"a GPU holds {plan.variants} variants at once"


def _cells(row: PlanRow) -> tuple[str, ...]:
    room = "any" if row.placement == "file" else f"{row.room / GB:.3g} GB"
    return (
        row.placement,
        "yes" if row.fits else "no",
        f"{row.needed / GB:.3g} GB",
        room,
        _text(row.blend_s),
        _text(row.trial_s),
    )


def _text(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds:.3g} s"
