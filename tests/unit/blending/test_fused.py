"""The fused kernel gives the bits of the steps: on a GPU, and on a CPU in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ztom.blending.apply import blend_tensor, fused_kernel
from ztom.blending.plan import DenseTerm, TensorPlan
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import BlendError

MEMBERS = 5
COEFFICIENTS = (-0.3, 0.7, 1.1, -0.25, 0.9)


def plan_of(sources: list[torch.Tensor], dtype: torch.dtype) -> TensorPlan:
    shape = tuple(sources[0].shape)
    specs = [TensorSpec(str(i), s.dtype, shape, "", 0, s.nbytes) for i, s in enumerate(sources)]
    terms = zip(specs, COEFFICIENTS, strict=True)
    return TensorPlan(
        "tensor", shape, dtype, tuple(DenseTerm(i, s, c) for i, (s, c) in enumerate(terms))
    )


def blended(sources: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    def read(member: int, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
        return sources[member].reshape(-1)[start:end]

    return blend_tensor(plan_of(sources, dtype), read, device=sources[0].device)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("deployed", [torch.float32, torch.bfloat16, torch.float16])
def test_the_kernel_gives_the_bits_of_the_steps(
    stored: torch.dtype, deployed: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    assert fused_kernel(device) is not None, "Triton is not installed beside this torch"
    for shape in ((3, 7), (1025,), (4096, 1031)):
        sources = [torch.randn(shape, device=device).to(stored) for _ in range(MEMBERS)]
        fused = blended(sources, deployed)
        with monkeypatch.context() as patch:
            patch.setattr("ztom.blending.apply.fused_kernel", lambda _: None)
            steps = blended(sources, deployed)
        assert torch.equal(fused, steps)


@pytest.mark.gpu
def test_the_kernel_sees_what_is_not_finite() -> None:
    device = torch.device("cuda")
    sources = [torch.full((5000,), 6e4, device=device).half() for _ in range(MEMBERS)]
    with pytest.raises(BlendError, match=r"not finite.*float16"):
        blended(sources, torch.float16)


def test_without_a_gpu_the_steps_are_taken() -> None:
    assert fused_kernel(torch.device("cpu")) is None


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_in_the_interpreter() -> None:
    """In a process of its own: the interpreter is chosen when the kernel is made."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _steps(sources: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """What the steps give; the interpreter casts to bfloat16 by cutting off, where a GPU rounds."""
    if dtype != torch.bfloat16:
        return blended(sources, dtype)
    exact = blended(sources, torch.float32)
    return (exact.view(torch.int32) & -65536).view(torch.float32).bfloat16()


def _interpret() -> None:
    from ztom.blending import fused

    torch.manual_seed(0)
    for stored in (torch.float32, torch.bfloat16, torch.float16):
        for deployed in (torch.float32, torch.bfloat16, torch.float16):
            for count in (1, 1000, 2500):
                sources = [torch.randn(count).to(stored) for _ in range(MEMBERS)]
                out = torch.full((count,), torch.nan, dtype=deployed)
                flag = torch.zeros(1, dtype=torch.int32)
                assert fused.can_sum(sources, out)
                fused.weighted_sum(sources, COEFFICIENTS, out, flag)
                assert torch.equal(out, _steps(sources, deployed)), (stored, deployed, count)
                assert not bool(flag)
                for bad in (torch.nan, torch.inf, -torch.inf):
                    sources[2][count // 2] = bad
                    fused.weighted_sum(sources, COEFFICIENTS, out, flag)
                    assert bool(flag)
    mixed = [torch.ones(3), torch.ones(3).bfloat16()]
    assert not fused.can_sum(mixed, torch.empty(3))


if __name__ == "__main__":
    _interpret()
