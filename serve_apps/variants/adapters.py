"""Adapters on one base: which of them stand in the engine's memory, and for whom they must stay.

vLLM keeps adapters in two caches of its own and reads one again from its folder when a request
needs it, inside the engine's loop, where a folder that is gone ends the engine. So what is loaded
and what is removed is decided here: a request goes to the engine with its adapter loaded, verified
and held until it ends, and only adapters that nobody holds are removed, the longest unused first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from serve_apps.variants.identity import ModelIdentity, name_content
from ztom.errors import VariantError
from ztom.io.places import StoragePlace
from ztom.settings import Settings
from ztom.variants.node_cache import local_copy
from ztom.variants.recipe import read_recipe
from ztom.variants.verified import verified_manifest


class AdapterEngine(Protocol):
    """What the shelf needs of an engine; see `VariantEngine`. A face is opaque here."""

    def face(self, identity: ModelIdentity, *, adapter_number: int) -> Any:
        """The face that answers as this adapter."""

    async def load_adapter(self, face: Any) -> None:
        """Read it into the engine's memory."""

    async def remove_adapter(self, face: Any) -> None:
        """Remove it from there."""

    async def prove_one_token(self, face: Any) -> None:
        """Generate one token with it."""


class NotLoadedError(VariantError):
    """An adapter was asked for that is not loaded, and nobody said where it is."""


@dataclass
class _Loaded:
    identity: ModelIdentity
    number: int
    face: Any
    holders: int = 0


def check_adapter(
    place: StoragePlace, name: str | None, *, digest: str, base_digest: str, max_rank: int
) -> ModelIdentity:
    """Have an adapter on this machine, verify it, and that it belongs to the base.

    Raises:
        VariantError: It does not verify, is another variant, full weights, of another base or of a
            rank that is too high.
        ConfigError: It has no model name.
    """
    settings = Settings()
    folder = local_copy(place, settings=settings)
    manifest = verified_manifest(folder, settings=settings)
    if manifest.digest != digest:
        raise VariantError(
            f"{folder} is another variant", got=manifest.digest[:12], expected=digest[:12]
        )
    recipe = read_recipe(folder)
    if recipe.form != "adapter":
        raise VariantError(
            f"{folder} is no adapter",
            got="full weights",
            fix="Deploy it as an application of its own, or write it with form: adapter.",
        )
    if recipe.members[0].sha256 != base_digest:
        raise VariantError(
            f"{folder} is an adapter of another base",
            got=recipe.members[0].sha256[:12],
            expected=base_digest[:12],
        )
    rank = _highest_rank(folder)
    if rank > max_rank:
        raise VariantError(
            f"the rank of {folder} is too high for this engine",
            got=rank,
            expected=f"at most {max_rank}",
            fix="Start the base with a higher max_lora_rank.",
        )
    return name_content(place, manifest, name, folder=folder)


class AdapterShelf:
    """The adapters that are loaded.

    Args:
        engine: Engine that holds the adapters.
        places: Number of adapters that the engine can hold.
        base_digest: Digest of the base.
        max_rank: Highest rank that the engine can hold.
    """

    def __init__(
        self, engine: AdapterEngine, *, places: int, base_digest: str, max_rank: int
    ) -> None:
        self._engine = engine
        self._free = places
        self._base_digest = base_digest
        self._max_rank = max_rank
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._sources: dict[str, tuple[StoragePlace, str | None]] = {}
        self._numbers = itertools.count(1)
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Event()

    @property
    def digests(self) -> tuple[str, ...]:
        """What can be held without saying where it is, loaded or not."""
        return tuple(self._sources)

    @property
    def loaded(self) -> tuple[str, ...]:
        """What is in the engine's memory, the longest unused first."""
        return tuple(self._loaded)

    @asynccontextmanager
    async def holding(
        self, digest: str, folder: StoragePlace | None = None, name: str | None = None
    ) -> AsyncIterator[Any]:
        """The face of an adapter, which stays loaded for the length of the block.

        Args:
            digest: Digest of the adapter.
            folder: Folder of the adapter, or its address; needed if it was never loaded.
            name: Model name of the adapter; when not given, the one that it had before, or the
                folder's.

        Raises:
            NotLoadedError: It was never loaded and there is no folder.
            VariantError: It does not verify or does not belong here, or does not answer.
            EngineError: The engine refuses it.
        """
        async with self._locks.setdefault(digest, asyncio.Lock()):
            loaded = self._loaded.get(digest)
            if loaded is None:
                loaded = await self._load(digest, folder, name)
            face = self._face(loaded, name)
            loaded.holders += 1
            self._loaded.move_to_end(digest)
        try:
            yield face
        finally:
            loaded.holders -= 1
            self._tell()

    async def forget(self, digest: str) -> None:
        """Remove an adapter once nobody holds it; one that is not known is no work."""
        async with self._locks.setdefault(digest, asyncio.Lock()):
            self._sources.pop(digest, None)
            loaded = self._loaded.get(digest)
            while loaded is not None and loaded.holders:
                await self._changed.wait()
            if loaded is not None and self._loaded.get(digest) is loaded:
                await self._remove(digest)

    async def _load(self, digest: str, folder: StoragePlace | None, name: str | None) -> _Loaded:
        identity = await asyncio.to_thread(self._check, digest, folder, name)
        await self._take_place()
        number = next(self._numbers)
        face = self._engine.face(identity, adapter_number=number)
        try:
            await self._engine.load_adapter(face)
            await self._prove(face)
        except BaseException:
            self._give_place()
            raise
        self._sources[digest] = (identity.folder, identity.name)
        self._loaded[digest] = loaded = _Loaded(identity, number, face)
        return loaded

    def _face(self, loaded: _Loaded, name: str | None) -> Any:
        """The adapter's face; under another name than before a new one, of the same adapter."""
        if name is not None and name != loaded.identity.name:
            loaded.identity = replace(loaded.identity, name=name)
            loaded.face = self._engine.face(loaded.identity, adapter_number=loaded.number)
            self._sources[loaded.identity.digest] = (loaded.identity.folder, name)
        return loaded.face

    def _check(self, digest: str, folder: StoragePlace | None, name: str | None) -> ModelIdentity:
        known = self._sources.get(digest)
        if folder is None and known is None:
            raise NotLoadedError(
                f"the adapter {digest[:12]} is not loaded", fix="Say in which folder it is."
            )
        where, called = (folder, name) if folder is not None else known or (Path(), None)
        return check_adapter(
            where,
            called,
            digest=digest,
            base_digest=self._base_digest,
            max_rank=self._max_rank,
        )

    async def _prove(self, face: Any) -> None:
        try:
            await self._engine.prove_one_token(face)
        except BaseException:
            await self._engine.remove_adapter(face)
            raise

    async def _take_place(self) -> None:
        """Wait until a place is free, making one where an adapter is held by nobody."""
        while not self._free:
            idle = self._idle()
            if idle is not None:
                await self._remove(idle)
            else:
                await self._changed.wait()
        self._free -= 1

    def _idle(self) -> str | None:
        """The adapter that nobody holds and that was used least recently."""
        return next((d for d, loaded in self._loaded.items() if loaded.holders == 0), None)

    async def _remove(self, digest: str) -> None:
        loaded = self._loaded.pop(digest)
        try:
            await self._engine.remove_adapter(loaded.face)
        finally:
            self._give_place()

    def _give_place(self) -> None:
        self._free += 1
        self._tell()

    def _tell(self) -> None:
        """Wake everybody who waits for something to change."""
        self._changed.set()
        self._changed = asyncio.Event()


def _highest_rank(folder: Path) -> int:
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VariantError(f"{folder} has no readable adapter_config.json", reason=error) from error
