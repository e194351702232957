"""``ztom serve``: one variant behind an OpenAI-compatible API, without a Z-TOM server."""

from __future__ import annotations

from typing import Annotated

import typer

from ztom.cli.options import Dtype, HelpPanel, Json, command_group, examples
from ztom.stack import require_stack

serving_commands = command_group(None, "Serving.")


@serving_commands.command(
    rich_help_panel=HelpPanel.SERVE,
    epilog=examples("ztom serve runs/search/variant --port 8001"),
)
def serve(
    variant: Annotated[
        str,
        typer.Argument(help="Folder of the variant, gs:// or s3:// address, or hf://org/name."),
    ],
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 takes a free one.")
    ] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Answer to this model name; else to the folder's.")
    ] = None,
    min_replicas: Annotated[
        int, typer.Option(min=0, help="Run at least so many replicas; 0 lets an idle one end.")
    ] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="Run at most so many replicas.")] = 1,
    target_ongoing_requests: Annotated[
        float, typer.Option(help="Scale towards so many requests in work per replica.")
    ] = 16,
    dtype: Dtype = "auto",
    max_model_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of prompt and answer together; else the model's."),
    ] = None,
    tensor_parallel_size: Annotated[
        int, typer.Option(min=1, help="Split each replica over so many GPUs.")
    ] = 1,
    tool_parser: Annotated[
        str,
        typer.Option(
            help="Read calls of tools with this parser of vLLM; auto takes the template's."
        ),
    ] = "auto",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let pages of this origin call it from a browser; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve a variant with an OpenAI-compatible API until Ctrl-C."""
    from ztom.settings import Settings
    from ztom.variants.manifest import read_manifest
    from ztom.variants.place import hub_name, variant_place
    from ztom.variants.signature import read_signature, require_signer, signer_text

    require_stack("vllm")
    place = variant_place(variant)
    signed = read_signature(place, read_manifest(place).digest)
    require_signer(place, signed, settings=Settings())
    from ztom.cli.actions.serving import serve_command

    options = {
        "variant": place,
        "name": name or hub_name(variant),
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "target_ongoing_requests": target_ongoing_requests,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "tensor_parallel_size": tensor_parallel_size,
        "tool_parser": tool_parser,
        "cors_origins": tuple(cors_origin or ()),
    }
    serve_command(options, signer_text(signed), host=host, port=port, as_json=as_json)
