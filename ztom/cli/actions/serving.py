"""What ``ztom serve`` does: bring a variant up, say how to call it, stay until Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ztom.cli.console import plain_console, print_document
from ztom.io.progress import shown_until

if TYPE_CHECKING:
    from serve_apps.variants.launch import ServedVariant


def serve_command(
    options: Mapping[str, object], signer: str, *, host: str, port: int, as_json: bool = False
) -> None:
    """Serve until interrupted.

    Args:
        options: Options of serving, by name.
        signer: Who has signed the variant, in words.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        as_json: Whether a document says how to call it.

    Raises:
        ZtomError: The variant does not verify, does not load, or an option is wrong.
    """
    from serve_apps.variants.args import parse_args
    from serve_apps.variants.launch import serve_variant

    args = parse_args({key: value for key, value in options.items() if value is not None})
    console = plain_console(stderr=True)

    def ready(served: ServedVariant) -> None:
        if as_json:
            print_document({"models": served.models, "base_url": served.api_base, "signer": signer})
        console.print(f"serving {', '.join(served.models)}, {signer}")
        console.print(f"base_url for an OpenAI client: {served.api_base}")
        console.print("Ctrl-C stops it")

    with shown_until("verifying the variant and loading it", ready) as on_ready:
        serve_variant(args, host=host, port=port, blocking=True, on_ready=on_ready)
