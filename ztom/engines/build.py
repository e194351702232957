"""Builds the engine that a configuration names."""

from __future__ import annotations

from pathlib import Path

from ztom.blending.chain import Chain
from ztom.checkpoints.fetch import fetch_folder
from ztom.engines.collector import import_paused
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine
from ztom.extras import require_extra
from ztom.plugins import Group, build_plugin
from ztom.settings import Settings
from ztom.stack import require_stack


def build_engine(config: EngineConfig, chain: Chain, *, settings: Settings | None = None) -> Engine:
    """An engine that holds the chain, with factors of zero.

    Raises:
        ConfigError: An engine of one's own cannot be had.
        EngineError: The engine does not start, with its reason.
        ChainError: A checkpoint cannot be blended.
    """
    # An adapter has no model of its own: the engine starts from the base and blends.
    start = chain.reference if chain.reference.kind == "full" else chain.base
    folder = fetch_folder(start, None, settings or Settings())
    return _build(config, folder, chain)


def build_single(config: EngineConfig, folder: Path) -> Engine:
    """An engine on one written model; it has no factors.

    Raises:
        EngineError: The engine does not start, with its reason.
    """
    return _build(config, folder, None)


def _build(config: EngineConfig, folder: Path, chain: Chain | None) -> Engine:
    require_stack()
    if config.name == "torch":
        import_paused("ztom.engines.torch_engine")
        from ztom.engines.torch_engine import TorchEngine

        return TorchEngine(config, folder, chain)
    if config.name == "vllm":
        require_extra("vllm", extra="gpu", purpose="the engine vllm")
        require_stack("vllm")
        import_paused("ztom.engines.vllm_engine")
        from ztom.engines.vllm_engine import VllmEngine

        return VllmEngine(config, folder, chain)
    engine: Engine = build_plugin(
        Group.ENGINES, config.name, config, folder, chain, protocol=Engine
    )
    return engine
