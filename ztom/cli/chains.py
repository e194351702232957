"""Commands on chains and variants: ``ztom chain``, ``blend``, ``inspect`` and ``verify``.

What was typed is read before anything heavy is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ztom.cli.options import LEDGER_HELP, Dtype, HelpPanel, Json, command_group, examples
from ztom.cli.places import any_place, local_only
from ztom.errors import FactorError

if TYPE_CHECKING:
    from ztom.blending.chain_file import ChainConfig
    from ztom.blending.groups import FactorGroups

chain_commands = command_group(None, "Chains and variants.")

ChainFile = Annotated[
    Path,
    typer.Argument(help="YAML file that lists the chain's checkpoints, or a Trainer's folder."),
]


@chain_commands.command(
    "chain",
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples("ztom chain outputs/run", "ztom chain outputs/run --base models/base"),
)
def write_chain(
    folder: Annotated[Path, typer.Argument(help="Output folder of a Trainer.")],
    base: Annotated[
        str | None,
        typer.Option(help="Begin with this model; else with the one that adapters name."),
    ] = None,
    output: Annotated[
        Path, typer.Option(callback=local_only, help="Write the chain into this new file.")
    ] = Path("chain.yaml"),
    as_json: Json = False,
) -> None:
    """Write chain.yaml from the checkpoints of a training, in the order of their steps."""
    from ztom.cli.actions.trainer import chain_command

    chain_command(folder, base, output, as_json=as_json)


@chain_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples("ztom convert models/old models/new", "ztom convert hf://org/name models/name"),
)
def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder or address of a checkpoint with pickled weights.")
    ],
    output: Annotated[
        Path, typer.Argument(callback=local_only, help="Write safetensors into this new folder.")
    ],
    as_json: Json = False,
) -> None:
    """Convert pytorch_model.bin or adapter_model.bin to safetensors, in a process of its own."""
    from ztom.cli.actions.convert import convert_command

    convert_command(checkpoint, output, as_json=as_json)


@chain_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples(
        "ztom blend chain.yaml --factors 0.1,-0.05 --output variants/first",
        "ztom blend chain.yaml --groups '{layers: 2}' --factors 0.1,0,0,-0.05,0,0 --output deep",
    ),
)
def blend(
    chain: ChainFile,
    factors: Annotated[
        str,
        typer.Option(help="Scale each transition, or transition and group, by: 0.1,-0.05,0"),
    ],
    output: Annotated[
        Path,
        typer.Option(
            callback=any_place, help="Write the variant into this new folder, or address."
        ),
    ],
    dtype: Dtype = "auto",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write one LoRA adapter instead of full weights.")
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Give groups of tensors factors of their own: kinds, {layers: 4} or {patterns: "
            "{early: ['model.layers.0.*']}}."
        ),
    ] = None,
    max_shard_gib: Annotated[
        float, typer.Option(min=1e-6, help="Split weights into files of at most so many GiB.")
    ] = 2.0,
    ledger: Annotated[
        str | None,
        typer.Option(help=f"{LEDGER_HELP} Without it, ledger.db is kept beside the output."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set factors by hand and write the blend as a variant."""
    from ztom.variants.place import ledger_beside

    address = ledger or ledger_beside(output)
    numbers, rule, config = parse_factors(factors), parse_rule(groups), _chain_on_disk(chain)
    from ztom.cli.actions.chains import blend_command

    blend_command(
        config,
        numbers,
        output,
        dtype=dtype,
        form="adapter" if adapter else "dense",
        max_shard_bytes=int(max_shard_gib * 2**30),
        ledger_address=address,
        as_json=as_json,
        groups=rule,
    )


@chain_commands.command(
    rich_help_panel=HelpPanel.MASTER, epilog=examples("ztom inspect chain.yaml --limit 0.3")
)
def inspect(
    chain: ChainFile,
    limit: Annotated[
        float, typer.Option(min=1e-9, help="Say what factors up to this bound can do.")
    ] = 0.1,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """List a chain: sizes, digests, how far each step moved, what a bound can do."""
    config = _chain_on_disk(chain)
    from ztom.cli.actions.chains import inspect_command

    inspect_command(config, limit=limit, dtype=dtype, as_json=as_json)


@chain_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples("ztom verify runs/search/variant", "ztom verify variants/first --share 1"),
)
def verify(
    variant: Annotated[
        str, typer.Argument(help="Folder of the variant, or hf://org/name on the Hub.")
    ],
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Derive this share of the tensors again, 0 to 1.")
    ] = 0.1,
    chain: Annotated[
        Path | None,
        typer.Option(help="Read the chain from this YAML file, if it is not where it was."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a variant's manifest and derive a share of its tensors again."""
    from ztom.variants.manifest import read_manifest
    from ztom.variants.place import local_variant

    folder = local_variant(variant)
    read_manifest(folder)
    config = None if chain is None else _chain_on_disk(chain)
    from ztom.cli.actions.chains import verify_command

    verify_command(folder, share=share, chain=config, as_json=as_json)


@chain_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples("ztom push runs/search/variant acme/support --private"),
)
def push(
    variant: Annotated[Path, typer.Argument(help="Folder of the variant.")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, org/name.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository that is private.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(help="Name this model of the Hub as the base; else what the recipe says."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="State this licence, such as apache-2.0; else what the files say."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a variant to the Hugging Face Hub, with a model card, as one commit."""
    from ztom.variants.manifest import read_manifest

    read_manifest(variant)
    from ztom.cli.actions.push import push_command

    push_command(
        variant, repo, private=private, base_model=base_model, license=license, as_json=as_json
    )


def _chain_on_disk(file: Path) -> ChainConfig:
    """A chain as its file has it, of checkpoints that are there."""
    from ztom.blending.chain_file import read_chain_file, require_members
    from ztom.settings import Settings

    config = read_chain_file(file)
    require_members(config, settings=Settings())
    return config


def parse_rule(text: str | None) -> FactorGroups | None:
    """``kinds`` or ``{layers: 4}`` as a rule.

    Raises:
        ConfigError: It is no rule.
    """
    if text is None:
        return None
    from ztom.blending.groups import parse_groups
    from ztom.io.yaml import parse_yaml

    return parse_groups(parse_yaml(text, source="--groups", json_only=False))


def parse_factors(text: str) -> list[float]:
    """``0.1,-0.05`` as numbers.

    Raises:
        FactorError: Something in it is not a number.
    """
    factors = []
    for part in text.split(","):
        try:
            factors.append(float(part))
        except ValueError:
            raise FactorError(
                "the factors are not numbers", got=part.strip() or "nothing", expected="0.1,-0.05,0"
            ) from None
    return factors
