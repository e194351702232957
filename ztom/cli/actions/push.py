"""What ``ztom push`` does: a variant onto the Hub, and what its card lacks."""

from __future__ import annotations

from pathlib import Path

from ztom.cli.console import plain_console, print_document
from ztom.variants.push import push_variant


def push_command(
    folder: Path,
    repo: str,
    *,
    private: bool,
    base_model: str | None,
    license: str | None,
    as_json: bool = False,
) -> None:
    """Push, and name what nobody could tell the card."""
    done = push_variant(folder, repo, private=private, base_model=base_model, license=license)
    facts = done.facts
    if as_json:
        print_document(
            {
                "address": str(done.address),
                "variant": done.digest,
                "base_model": list(facts.base_models),
                "license": facts.license,
                "pipeline_tag": facts.task,
            }
        )
        return
    console = plain_console()
    console.print(f"variant {done.digest[:12]} is {done.address}", soft_wrap=True)
    if not facts.base_models:
        console.print("its card names no base model; --base-model org/name does", soft_wrap=True)
    if facts.license is None:
        console.print("its card states no licence; --license does", soft_wrap=True)
