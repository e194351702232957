"""Making engines and error functions in other processes.

A module of its own with few imports: every process of a search imports it when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ztom.engines.protocol import Engine
from ztom.scoring.protocol import ErrorFunction

if TYPE_CHECKING:
    from ztom.blending.chain_file import ChainConfig
    from ztom.blending.groups import FactorGroups
    from ztom.engines.config import EngineConfig
    from ztom.io.places import StoragePlace
    from ztom.scoring.build import ErrorTerm
    from ztom.settings import Settings


@dataclass(frozen=True)
class EngineFactory:
    """Makes an engine; opens the chain again where it is called.

    Attributes:
        engine: Kind of engine, and its options.
        chain: The chain with absolute references.
        settings: The driver's settings; the other process may have another environment.
        groups: Groups of tensors that have factors of their own.
    """

    engine: EngineConfig
    chain: ChainConfig
    settings: Settings
    groups: FactorGroups | None = None

    def __call__(self) -> Engine:
        """The engine, loaded."""
        from ztom.blending.chain import load_chain
        from ztom.blending.group_assignment import group_chain
        from ztom.engines.build import build_engine

        chain = group_chain(load_chain(self.chain, settings=self.settings), self.groups)
        return build_engine(self.engine, chain, settings=self.settings)


@dataclass(frozen=True)
class VariantEngineFactory:
    """Makes an engine on blended weights that were written, with no factors.

    Attributes:
        engine: Kind of engine, and its options.
        place: Folder of full weights, or of an adapter over the chain's base; or its address, from
            which the node of the engine fetches it.
        chain: The chain with absolute references; its base is needed for an adapter.
        settings: The driver's settings.
    """

    engine: EngineConfig
    place: StoragePlace
    chain: ChainConfig
    settings: Settings

    def __call__(self) -> Engine:
        """The engine, loaded from the files."""
        from ztom.blending.chain import load_chain
        from ztom.blending.chain_file import ChainConfig, Member
        from ztom.engines.build import build_engine, build_single
        from ztom.variants.manifest import STAGED
        from ztom.variants.node_cache import local_copy

        folder = local_copy(self.place, settings=self.settings, name=STAGED)
        if not (folder / "adapter_config.json").exists():
            return build_single(self.engine, folder)
        members = (self.chain.checkpoints[0], Member(reference=str(folder)))
        settings = self.settings.also_allowing(folder)
        allowed = self.chain.allow_tokenizer_differences
        config = ChainConfig(checkpoints=members, allow_tokenizer_differences=allowed)
        adapted = load_chain(config, settings=settings)
        return build_engine(self.engine, adapted, settings=settings)


@dataclass(frozen=True)
class ErrorFactory:
    """Makes an error function.

    Attributes:
        terms: Error terms that are summed.
        labels: Class labels, where a term needs them.
    """

    terms: tuple[ErrorTerm, ...]
    labels: tuple[str, ...]

    def __call__(self) -> ErrorFunction:
        """The error function, with whatever models it holds."""
        from ztom.scoring.build import build_error

        return build_error(self.terms, labels=self.labels)
