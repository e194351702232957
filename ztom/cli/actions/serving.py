"""What ``ztom serve`` does: bring a variant up, say how to call it, stay until Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console

from ztom.cli.console import print_document

if TYPE_CHECKING:
    from serve_apps.variants.launch import ServedVariant


def serve_command(
    options: Mapping[str, object], *, host: str, port: int, as_json: bool = False
) -> None:
    """Serve until interrupted.

    Raises:
        ZtomError: The variant does not verify, does not load, or an option is wrong.
    """
    from serve_apps.variants.args import parse_args
    from serve_apps.variants.launch import serve_variant

    args = parse_args({key: value for key, value in options.items() if value is not None})
    console = Console(stderr=True)
    console.print("verifying the variant and loading it ...")

    def ready(served: ServedVariant) -> None:
        if as_json:
            print_document({"models": served.models, "base_url": served.api_base})
        console.print(f"serving {', '.join(served.models)}", markup=False, highlight=False)
        console.print(f"base_url for an OpenAI client: {served.api_base}", highlight=False)
        console.print("Ctrl-C stops it")

    serve_variant(args, host=host, port=port, blocking=True, on_ready=ready)
