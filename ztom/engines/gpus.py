"""What kinds of GPUs are, under the names that Ray has for them.

Memory and bandwidth are the data sheets' (https://www.nvidia.com/en-us/data-center/: T4, L4, A10,
L40S, A100, V100, H100, H200 product pages), in decimal units, of the SXM form where there are two;
the link to the host is one direction of PCI Express, by generation and 16 lanes. Compute capability
is https://developer.nvidia.com/cuda-gpus. A card that is not here is described by its user.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9
#: Compute capability from which on a GPU computes in bfloat16, and in 8-bit floats.
_BFLOAT16, _FP8 = (8, 0), (8, 9)


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: Name as Ray's ``accelerator_type``.
        memory: Bytes of its memory.
        bandwidth: Bytes a second that are read from its memory.
        link: Bytes a second that come from the host's memory.
        capability: Compute capability, major and minor.
    """

    name: str
    memory: int
    bandwidth: float
    link: float
    capability: tuple[int, int]

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return self.capability >= _BFLOAT16

    @property
    def has_fp8(self) -> bool:
        """Whether it multiplies 8-bit floats."""
        return self.capability >= _FP8


def _gpu(name: str, memory: int, bandwidth: float, link: float, capability: str) -> Gpu:
    major, minor = map(int, capability.split("."))
    return Gpu(name, memory * GB, bandwidth * GB, link * GB, (major, minor))


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4", 16, 320, 16, "7.5"),
        _gpu("V100", 16, 900, 16, "7.0"),
        _gpu("L4", 24, 300, 32, "8.9"),
        _gpu("A10G", 24, 600, 32, "8.6"),
        _gpu("L40S", 48, 864, 32, "8.9"),
        _gpu("A100", 40, 1555, 32, "8.0"),
        _gpu("A100-40G", 40, 1555, 32, "8.0"),
        _gpu("A100-80G", 80, 2039, 32, "8.0"),
        _gpu("H100", 80, 3350, 64, "9.0"),
        _gpu("H200", 141, 4800, 64, "9.0"),
    )
}
