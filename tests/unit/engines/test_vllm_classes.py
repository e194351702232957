"""Which classes are registered with vLLM's registry, and that nothing here ends a start."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ztom.engines.vllm_classes import register_classes


class _Registry:
    """Keeps what it was told, as vLLM's does."""

    def __init__(self, **models: object) -> None:
        self.models: dict[str, object] = models

    def register_model(self, name: str, cls: type) -> None:
        self.models[name] = cls


def by_name(load) -> SimpleNamespace:
    return SimpleNamespace(module_name="models.llama", load_model_cls=load)


def fail() -> type:
    raise ImportError("no such kernel")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Llama", "Other"]}))
    return tmp_path


def test_a_class_that_is_known_by_name_is_imported_and_registered(folder):
    other = by_name(fail)
    registry = _Registry(Llama=by_name(lambda: dict), Unused=other)
    register_classes(registry, folder)
    assert registry.models == {"Llama": dict, "Unused": other}
    register_classes(registry, folder)  # it is no name any more
    assert registry.models["Llama"] is dict


def test_what_cannot_be_imported_is_left_to_vllm(folder, tmp_path):
    lazy = by_name(fail)
    registry = _Registry(Llama=lazy)
    register_classes(registry, folder)
    assert registry.models == {"Llama": lazy}
    register_classes(registry, tmp_path / "nowhere")
    assert registry.models == {"Llama": lazy}
