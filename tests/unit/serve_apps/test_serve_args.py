"""The options of a served variant, and what follows from them without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from toy_checkpoints import llama_tensors, write_checkpoint

from serve_apps.variants.args import BaseArgs, VariantArgs, parse_args
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import ModelIdentity, identify
from serve_apps.variants.options import engine_options
from ztom.errors import ConfigError, VariantError
from ztom.variants.manifest import MANIFEST, build_manifest
from ztom.variants.signature import SIGNATURE


def test_text_as_the_command_line_gives_it_is_understood(tmp_path):
    args = parse_args({"variant": str(tmp_path), "min_replicas": "2", "max_replicas": "4"})
    assert (args.min_replicas, args.max_replicas) == (2, 4)
    assert args.variant == tmp_path


def test_relative_folders_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_args({"variant": "model"}).variant == tmp_path / "model"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": "/nowhere/at/all"}, "no folder"),
        ({"min_replica": 1}, "min_replica"),
        ({"min_replicas": 3, "max_replicas": 2}, "below min_replicas"),
        ({"min_replicas": -1}, "min_replicas"),
        ({"max_replicas": 0}, "max_replicas"),
        ({"target_ongoing_requests": 65, "max_ongoing_requests": 64}, "never scale up"),
        ({"target_ongoing_requests": "nan"}, "target_ongoing_requests"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "cpu", "dtype": "float16"}, "float16"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"kv_cache_gib": 0}, "kv_cache_gib"),
        ({"gpu_fraction": 1.5}, "gpu_fraction"),
        ({"gpu_fraction": 0.5, "tensor_parallel_size": 2}, "must be 1"),
        ({"name": "two words"}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_bad_options_are_named(tmp_path, options, named):
    with pytest.raises(ConfigError, match=named):
        parse_args({"variant": str(tmp_path)} | options)


def test_a_missing_variant_is_named():
    with pytest.raises(ConfigError, match="variant"):
        parse_args({})


def test_args_cannot_be_changed(tmp_path):
    args = VariantArgs(variant=tmp_path)
    with pytest.raises(ValidationError):
        args.max_replicas = 7


def test_cache_size_in_bytes(tmp_path):
    assert VariantArgs(variant=tmp_path).kv_cache_bytes is None
    assert VariantArgs(variant=tmp_path, kv_cache_gib=0.25).kv_cache_bytes == 2**28


BASE = {"base": "/models/base", "digest": "0" * 64}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"digest": "abc"}, "digest"),
        ({"digest": None}, "digest"),
        ({"base": ""}, "base"),
        ({"max_loras": 9, "max_cpu_loras": 8}, "below max_loras"),
        ({"max_lora_rank": 513}, "max_lora_rank"),
        ({"variant": "/models/base"}, "variant"),
        ({"max_replicas": 0}, "max_replicas"),
    ],
)
def test_bad_options_of_a_base_are_named(options, named):
    with pytest.raises(ValidationError, match=named):
        BaseArgs.model_validate(BASE | options)


def identity(folder: Path, dtype: torch.dtype = torch.float32) -> ModelIdentity:
    tensors = {name: tensor.to(dtype) for name, tensor in llama_tensors().items()}
    return ModelIdentity("toy", "0" * 64, 0, write_checkpoint(folder, tensors))


@pytest.mark.parametrize(
    ("stored", "asked", "told"),
    [
        (torch.float32, "auto", "float32"),
        (torch.bfloat16, "auto", "auto"),
        (torch.float32, "bfloat16", "bfloat16"),
        (torch.bfloat16, "float32", "float32"),
    ],
)
def test_auto_deploys_what_is_stored(tmp_path, stored, asked, told):
    args = VariantArgs(variant=tmp_path, dtype=asked)
    assert engine_options(args, identity(tmp_path, stored), on_gpu=False)["dtype"] == told


@pytest.mark.parametrize(("rank", "kernel"), [(1, 1), (9, 16), (64, 64), (65, 128), (512, 512)])
def test_the_engine_gets_the_next_rank_it_has_kernels_for(tmp_path, rank, kernel):
    args = BaseArgs(**BASE, max_lora_rank=rank)
    options = engine_options(args, identity(tmp_path), on_gpu=False)
    assert (options["enable_lora"], options["max_lora_rank"]) == (True, kernel)
    assert (options["max_loras"], options["max_cpu_loras"]) == (8, 64)


def test_only_what_is_asked_for_is_mixed_into_the_engine(tmp_path):
    plain = engine_options(VariantArgs(variant=tmp_path), identity(tmp_path), on_gpu=False)
    assert not {"enable_lora", "worker_extension_cls"} & plain.keys()
    swapping = VariantArgs(variant=tmp_path, live_swap=True)
    extension = engine_options(swapping, identity(tmp_path), on_gpu=False)["worker_extension_cls"]
    assert extension == "serve_apps.variants.worker.VariantWorker"


@pytest.mark.parametrize(
    ("options", "on_gpu", "memory"),
    [
        ({}, False, {"kv_cache_memory_bytes": 2**29, "gpu_memory_utilization": 0.05}),
        ({"kv_cache_gib": 0.25}, False, {"kv_cache_memory_bytes": 2**28}),
        ({}, True, {}),
        ({"kv_cache_gib": 1}, True, {"kv_cache_memory_bytes": 2**30}),
        ({"gpu_fraction": 0.5}, True, {"gpu_memory_utilization": 0.46}),
    ],
)
def test_how_the_engine_sizes_its_cache(tmp_path, options, on_gpu, memory):
    args = VariantArgs(variant=tmp_path, **options)
    given = engine_options(args, identity(tmp_path), on_gpu=on_gpu)
    assert {key: given[key] for key in memory} == memory
    if not memory:
        assert not {"kv_cache_memory_bytes", "gpu_memory_utilization"} & given.keys()


@pytest.mark.parametrize(
    ("on_gpu", "parallel", "inside"), [(False, 1, "0"), (False, 2, None), (True, 1, None)]
)
def test_environment_is_offline_and_quiet(tmp_path, monkeypatch, on_gpu, parallel, inside):
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "INFO"})
    args = VariantArgs(variant=tmp_path, tensor_parallel_size=parallel, num_cpus=2.5)
    prepare_environment(args, on_gpu=on_gpu)
    assert os.environ.get("OMP_NUM_THREADS") == (None if on_gpu else "2")
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
    assert os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == inside
    # without a GPU the engine runs eagerly, and nothing has to be compiled
    assert os.environ.get("TORCHDYNAMO_DISABLE") == (None if on_gpu else "1")


def test_who_wants_vllm_to_compile_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"TORCHDYNAMO_DISABLE": "0"})
    prepare_environment(VariantArgs(variant=tmp_path), on_gpu=False)
    assert os.environ["TORCHDYNAMO_DISABLE"] == "0"


def write_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    (folder / SIGNATURE).unlink(missing_ok=True)
    (folder / MANIFEST).write_bytes(build_manifest(folder).to_bytes())
    return folder


def test_a_variant_is_named_by_its_folder_and_its_content(tmp_path):
    folder = write_folder(tmp_path / "support-7b", "config.json")
    identity = identify(VariantArgs(variant=folder))
    assert identity.ids == ("support-7b", f"support-7b@{identity.digest[:12]}")
    assert identity.fingerprint == f"ztom-{identity.digest[:12]}"
    assert identify(VariantArgs(variant=folder, name="other")).name == "other"


def test_a_folder_name_that_is_no_model_name_needs_one(tmp_path):
    folder = write_folder(tmp_path / "two words", "config.json")
    with pytest.raises(ConfigError, match="option 'name'"):
        identify(VariantArgs(variant=folder))
    assert identify(VariantArgs(variant=folder, name="one")).name == "one"


def test_an_adapter_alone_is_not_served(tmp_path):
    folder = write_folder(tmp_path / "adapter", "adapter_config.json")
    with pytest.raises(VariantError, match="an adapter"):
        identify(VariantArgs(variant=folder))


@pytest.mark.parametrize("harm", ["flip", "extra", "missing", "no manifest"])
def test_a_harmed_variant_is_not_served(tmp_path, harm):
    folder = write_folder(tmp_path / "v", "config.json", "model.safetensors")
    if harm == "flip":
        (folder / "model.safetensors").write_text("model.safetensorz")
    elif harm == "extra":
        (folder / "modeling.py").write_text("")
    else:
        (folder / (MANIFEST if harm == "no manifest" else "model.safetensors")).unlink()
    with pytest.raises(VariantError):
        identify(VariantArgs(variant=folder))
