"""The options of a served variant, and what follows from them without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_apps.variants.args import VariantArgs, parse_args
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import identify
from ztom.errors import ConfigError, VariantError
from ztom.variants.manifest import MANIFEST, build_manifest


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


def write_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
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
