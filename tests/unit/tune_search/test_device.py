"""What a search settles when it knows the cluster: dtype and fit, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_checkpoints import llama_tensors, write_checkpoint

from cluster.capacity import ClusterCapacity, NodeShape, Pool
from tune_search import device
from tune_search.device import settle_device
from tune_search.factories import EngineFactory
from tune_search.preparation import RunInputs, prepare
from ztom.engines.gpus import Gpu
from ztom.errors import EngineError
from ztom.search.config import SearchConfig
from ztom.search.config_files import load_config
from ztom.settings import Settings


def pool(kind: str, gpus: int = 1) -> ClusterCapacity:
    node = NodeShape({"CPU": 4, "GPU": gpus, f"accelerator_type:{kind}": 1})
    return ClusterCapacity((NodeShape({"CPU": 4}),), (Pool("pool", node, 2),))


def make(folder: Path, dtype: torch.dtype, **engine: Any) -> tuple[SearchConfig, RunInputs]:
    for seed in range(3):
        tensors = {name: t.to(dtype) for name, t in llama_tensors(seed).items()}
        write_checkpoint(folder / f"c{seed}", tensors)
    lines = [{"id": f"{i}", "prompt": f"item {i} of {i * i}", "expected": "x"} for i in range(40)]
    (folder / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = {
        "chain": {"checkpoints": ["c0", "c1", "c2"]},
        "stimuli": "s.jsonl",
        "error": "cross_entropy",
        "engine": {"name": "ztom.testing.fake_engine:make_engine", **engine},
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(content))
    config = load_config(folder / "search.yaml")
    return config, prepare(config, settings=Settings())


def test_a_search_on_a_t4_is_in_float16_and_says_so(tmp_path: Path) -> None:
    config, inputs = make(tmp_path, torch.bfloat16)
    settled, settled_inputs = settle_device(config, inputs, pool("T4"))
    assert settled.engine.dtype == "float16"  # the variant and its proof take it from here
    factory = settled_inputs.study.engine
    assert isinstance(factory, EngineFactory)
    assert factory.engine.dtype == "float16"
    (note,) = settled_inputs.notes
    assert "a T4 does not compute: the search, its proof and the variant are in float16" in note


@pytest.mark.parametrize("kind", ["L4", "unheard-of"])
def test_elsewhere_it_is_what_is_stored(tmp_path: Path, kind: str) -> None:
    config, inputs = make(tmp_path, torch.bfloat16)
    assert settle_device(config, inputs, pool(kind)) == (config, inputs)
    on_cpu, same = make(tmp_path, torch.bfloat16, device="cpu")
    assert settle_device(on_cpu, same, pool("T4")) == (on_cpu, same)


def test_what_does_not_fit_is_refused_with_the_arithmetic(tmp_path: Path, monkeypatch) -> None:
    small = Gpu("L4", memory=2**20, bandwidth=1.0, link=1.0, capability=(8, 9))
    monkeypatch.setitem(device.GPUS, "L4", small)
    config, inputs = make(tmp_path, torch.bfloat16)
    with pytest.raises(EngineError, match="does not fit into 1 L4.*weights in bfloat16"):
        settle_device(config, inputs, pool("L4"))
