"""Machines that a plan can name: GPUs, memory and cores of some machine types.

From https://cloud.google.com/compute/docs/gpus (G2, A2, A3; N1 with T4s attached) as it describes
them in decimal gigabytes of memory. What they cost is nobody's to know here: prices differ by
region, contract and week, so a plan has them from its user. A machine that is not here is described
by its GPU and its memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from ztom.engines.gpus import GB, GPUS, Gpu


@dataclass(frozen=True)
class Machine:
    """A machine for engines.

    Attributes:
        name: Type of machine, as its cloud names it.
        gpu: Kind of its GPUs; None for a machine without.
        gpus: Number of them.
        memory: Bytes of the host's memory.
        bandwidth: Bytes a second that are read from the host's memory; None where it is not known,
            and needed only without a GPU.
    """

    name: str
    gpu: Gpu | None
    gpus: int
    memory: int
    bandwidth: float | None = None


def _machine(name: str, kind: str, gpus: int, memory: int) -> Machine:
    return Machine(name, GPUS[kind], gpus, memory * GB)


MACHINES = {
    machine.name: machine
    for machine in (
        _machine("g2-standard-4", "L4", 1, 16),
        _machine("g2-standard-8", "L4", 1, 32),
        _machine("g2-standard-12", "L4", 1, 48),
        _machine("g2-standard-16", "L4", 1, 64),
        _machine("g2-standard-24", "L4", 2, 96),
        _machine("g2-standard-32", "L4", 1, 128),
        _machine("g2-standard-48", "L4", 4, 192),
        _machine("g2-standard-96", "L4", 8, 384),
        _machine("n1-standard-4-t4", "T4", 1, 15),
        _machine("n1-standard-8-t4", "T4", 1, 30),
        _machine("n1-standard-16-t4", "T4", 1, 60),
        _machine("a2-highgpu-1g", "A100-40G", 1, 85),
        _machine("a2-highgpu-2g", "A100-40G", 2, 170),
        _machine("a2-highgpu-4g", "A100-40G", 4, 340),
        _machine("a2-highgpu-8g", "A100-40G", 8, 680),
        _machine("a2-ultragpu-1g", "A100-80G", 1, 170),
        _machine("a2-ultragpu-2g", "A100-80G", 2, 340),
        _machine("a3-highgpu-8g", "H100", 8, 1872),
    )
}
