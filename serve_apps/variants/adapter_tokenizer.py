"""The tokenizer and the chat template of an adapter that answers from the engine of its base.

An engine has one tokenizer, its base's. An adapter that brings another one was trained on other
ids, so it does not share an engine; the chat template is text, and each adapter has its own.
"""

from __future__ import annotations

from pathlib import Path

from ztom.checkpoints.checkpoint import Checkpoint, open_folder
from ztom.checkpoints.tokenizer_meaning import (
    PROBES,
    TokenizerMeaning,
    chat_templates,
    tokenizer_meaning,
)
from ztom.engines.chat_template import check_chat_template
from ztom.errors import VariantError
from ztom.settings import Settings

_SHOWN = 3


def chat_template_of(adapter: Path) -> str | None:
    """The chat template that an adapter brings, in Jinja; None where its base's is meant.

    Raises:
        CheckpointError: The folder is no adapter, or a file of it is not JSON.
    """
    opened = open_folder(adapter, settings=Settings())
    return chat_templates(opened.source, opened.files).get("default")


def require_shared_tokenizer(adapter: Path, base: Path) -> None:
    """Look whether an adapter's tokenizer, if it has one, does what its base's does.

    Args:
        adapter: Folder of the adapter.
        base: Folder of the base.

    Raises:
        VariantError: It does something else; names what.
        CapabilityError: Its chat template does not come to an end.
    """
    own, shared = (open_folder(folder, settings=Settings()) for folder in (adapter, base))
    template = chat_templates(own.source, own.files).get("default")
    if template is not None:
        check_chat_template(template)
    if own.tokenizer_digest is None:
        return
    difference = _difference(_meaning(own, shared), _meaning(shared, shared))
    if difference is not None:
        raise VariantError(
            f"the tokenizer of {adapter.name} is not its base's",
            got=difference,
            expected="one tokenizer for all adapters that answer from one engine",
            fix="Write the variant in full weights, which have their own: `ztom blend` without "
            "--adapter, or variant.form: dense in a search.",
        )


def _meaning(checkpoint: Checkpoint, base: Checkpoint) -> TokenizerMeaning:
    return tokenizer_meaning(checkpoint.source, checkpoint.files, base.config)


def _difference(own: TokenizerMeaning, shared: TokenizerMeaning) -> str | None:
    """What one does that the other does not, padding apart, which no text has; None for nothing."""
    for which, left, right in (("it", own, shared), ("the base", shared, own)):
        extra = left.tokens.items() - right.tokens.items()
        tokens = sorted(token for _, token in extra if token != left.padding)
        if tokens:
            return f"{which} has other tokens: {', '.join(map(repr, tokens[:_SHOWN]))}"
    for text, ours, theirs in zip(PROBES, own.probes, shared.probes, strict=True):
        if ours != theirs:
            return f"it splits {text!r} otherwise"
    if own.marked != shared.marked:
        return "it puts other tokens around a text"
    if own.bounds != shared.bounds:
        return f"a text begins and ends with {own.bounds}, not {shared.bounds}"
    return None
