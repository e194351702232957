"""Which model is run: a variant's folder, or a reference to a checkpoint.

A variant has to be what its manifest says, every byte of it; its digest is that of the manifest,
which names the base of an adapter as well. A checkpoint's digest is over all its files. An adapter
runs on the base that it belongs to, and the digest of one that is no variant is over both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, Member
from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ztom.checkpoints.fetch import fetch_folder
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine
from ztom.errors import EvaluationError
from ztom.evaluation.runs.results import ModelRef
from ztom.evaluation.suites.digests import canonical
from ztom.settings import Settings
from ztom.variants.manifest import MANIFEST, verify_manifest
from ztom.variants.recipe import RECIPE, read_recipe


@dataclass(frozen=True)
class OpenModel:
    """A model that was found and checked, not yet loaded.

    Attributes:
        ref: Name of the model and digest of its content.
        folder: Folder of a full model on this machine; None for an adapter.
        chain: Base and adapter; None for a full model.
    """

    ref: ModelRef
    folder: Path | None
    chain: Chain | None

    def load(self, config: EngineConfig, *, settings: Settings) -> Engine:
        """An engine that answers with it.

        Raises:
            EngineError: The engine does not start.
        """
        if self.folder is not None:
            return build_single(config, self.folder)
        if self.chain is None:
            raise EvaluationError(f"{self.ref.name} has neither a folder nor a chain")
        # Factors of zero: the base with the adapter as it was trained.
        return build_engine(config, self.chain, settings=settings)


def open_model(reference: str, *, base: str | None = None, settings: Settings) -> OpenModel:
    """Find a model and read every byte of it for its digest.

    Args:
        reference: A variant's folder, or a checkpoint as chains refer to it.
        base: Reference of the model that an adapter belongs to; a variant's recipe knows.
        settings: Settings with what may be referred to.

    Raises:
        CheckpointError: It is no checkpoint.
        EvaluationError: It is an adapter without a base, or the other way round.
        VariantError: A file of the variant is not what it was.
    """
    folder = Path(reference)
    is_variant = (folder / MANIFEST).is_file() and (folder / RECIPE).is_file()
    digest = verify_manifest(folder).digest if is_variant else None
    checkpoint = open_checkpoint(
        str(folder.absolute()) if is_variant else reference, settings=settings
    )
    name = folder.absolute().name if is_variant else reference
    if checkpoint.kind == "full":
        if base is not None:
            raise EvaluationError(f"{reference} is a whole model", got=f"base {base}")
        local = fetch_folder(checkpoint, None, settings)
        return OpenModel(ModelRef(name=name, digest=digest or checkpoint.digest), local, None)
    member = read_recipe(folder).members[0] if is_variant else None
    if base is None and member is not None:
        base = member.reference
    model = _with_base(checkpoint, name, base, settings)
    if digest is None or member is None:
        return model
    if model.chain is not None and model.chain.base.digest != member.sha256:
        raise EvaluationError(
            f"{reference} belongs to another base",
            got=model.chain.base.digest,
            expected=member.sha256,
        )
    return replace(model, ref=ModelRef(name=name, digest=digest))


def _with_base(adapter: Checkpoint, name: str, base: str | None, settings: Settings) -> OpenModel:
    if base is None:
        raise EvaluationError(
            f"{adapter.reference} is an adapter",
            expected="the model it belongs to as well",
            fix="Name it with --base.",
        )
    # The tokenizer is the adapter's own, if it has one: nothing of the base's rows is blended.
    config = ChainConfig(
        checkpoints=(Member(reference=base), Member(reference=adapter.reference)),
        allow_tokenizer_differences=True,
    )
    chain = load_chain(config, settings=settings)
    return OpenModel(ModelRef(name=name, digest=chain.digest), None, chain)


def setup_digest(config: EngineConfig) -> str:
    """sha256 of how an engine is set up, as far as answers depend on it; lower-case hex.

    Tokenizer and chat template are part of the model's content; whether the template is applied is
    part of this.
    """
    kept = {"name", "dtype", "tensor_parallel_size", "max_model_len", "chat_template", "module"}
    return hashlib.sha256(canonical(config.model_dump(mode="json", include=kept))).hexdigest()
