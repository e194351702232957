"""``ztom serve``: bring a variant up, say how to call it, stay until Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from serve_apps.variants.launch import ServedVariant


def serve_command(options: Mapping[str, object], *, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        ZtomError: The variant does not verify, does not load, or an option is wrong.
    """
    from serve_apps.variants.args import parse_args
    from serve_apps.variants.launch import serve_variant

    given = {key: value for key, value in options.items() if value is not None}
    console = Console(stderr=True)
    console.print("verifying the variant and loading it ...")

    def ready(served: ServedVariant) -> None:
        console.print(f"serving {', '.join(served.models)}", markup=False, highlight=False)
        console.print(f"base_url for an OpenAI client: {served.api_base}", highlight=False)
        console.print("Ctrl-C stops it")

    serve_variant(parse_args(given), host=host, port=port, blocking=True, on_ready=ready)
