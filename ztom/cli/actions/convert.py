"""What ``ztom convert`` does: pickled weights become safetensors in a new folder."""

from __future__ import annotations

from pathlib import Path

from ztom.checkpoints.convert import convert_checkpoint
from ztom.cli.console import plain_console, print_document
from ztom.settings import Settings


def convert_command(reference: str, output: Path, *, as_json: bool = False) -> None:
    """Convert, and say what was left behind."""
    done = convert_checkpoint(reference, output, settings=Settings())
    if as_json:
        print_document(
            {
                "path": output.absolute(),
                "converted": dict(done.converted),
                "kept": list(done.kept),
                "left_out": dict(done.left_out),
                "tensors": done.tensors,
            }
        )
        return
    console = plain_console()
    for old, new in done.converted.items():
        console.print(f"{old} -> {new}", soft_wrap=True)
    for path, reason in done.left_out.items():
        console.print(f"left out: {path} ({reason})", soft_wrap=True)
    console.print(f"{done.tensors} tensors in {output}", soft_wrap=True)
