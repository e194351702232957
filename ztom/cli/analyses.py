"""Commands on the chain of a project at a server: edits, and ``ztom analysis``.

``ztom.cli.remote`` has the other commands of ``ztom project``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, ProjectName, Server, command_group, examples
from ztom.cli.places import local_only
from ztom.cli.remote import project

analysis = command_group(
    "analysis",
    "Compare and ask the checkpoints of a server.",
    "ztom analysis static support week-2",
)

FileName = Annotated[str, typer.Argument(help="Id, tag or name of the checkpoint.")]
BlendOutput = Annotated[
    Path,
    typer.Option(
        callback=local_only, help="Save it in this folder, or under this name that ends in .tar."
    ),
]
AllowConfig = Annotated[
    str | None,
    typer.Option(
        "--allow-config-differences",
        metavar="KEYS",
        help="Go on where checkpoints differ in these keys of config.json: rms_norm_eps,...",
    ),
]
AllowTokenizer = Annotated[
    bool,
    typer.Option(
        "--allow-tokenizer-differences", help="Go on where tokenizers split texts differently."
    ),
]
Stimuli = Annotated[
    list[str],
    typer.Argument(help="One file of this machine, which is sent, or paths of the server."),
]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Generate so many tokens a stimulus at most.")
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Ask so many stimuli at a time.")]


@project.command(
    "metatune",
    epilog=examples(
        "ztom project metatune support --factor week-1=0.25 --output models/tuned",
        "ztom project metatune support --groups '{layers: 1}' --factor week-1=0.2,0 --output deep",
    ),
)
def project_metatune(
    project: ProjectName,
    factor: Annotated[
        list[str],
        typer.Option(
            "--factor",
            metavar="FILE=NUMBER",
            help="Scale the step that ends in this checkpoint by this; may be repeated. With "
            "groups: FILE=NUMBER,NUMBER, a number for each group.",
        ),
    ],
    output: BlendOutput,
    groups: Annotated[
        str | None,
        typer.Option(help="Give groups of tensors factors of their own: kinds, or {layers: 4}."),
    ] = None,
    allow_config_differences: AllowConfig = None,
    allow_tokenizer_differences: AllowTokenizer = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Scale steps of a project's chain by hand and save the blend."""
    from ztom.cli.actions.analyses import metatune_command

    metatune_command(
        project,
        factor,
        output,
        server,
        allowed=(allow_config_differences, allow_tokenizer_differences),
        as_json=as_json,
        groups=groups,
    )


@project.command(
    "edit", epilog=examples("ztom project edit support week-2 --output models/without")
)
def project_edit(
    project: ProjectName,
    files: Annotated[
        list[str],
        typer.Argument(help="Ids, tags or names of the checkpoints in which the steps end."),
    ],
    output: BlendOutput,
    allow_config_differences: AllowConfig = None,
    allow_tokenizer_differences: AllowTokenizer = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Remove what was trained in steps of a project's chain and save what is left."""
    from ztom.cli.actions.analyses import edit_command

    edit_command(
        project,
        files,
        output,
        server,
        allowed=(allow_config_differences, allow_tokenizer_differences),
        as_json=as_json,
    )


@analysis.command(
    "static",
    epilog=examples(
        "ztom analysis static support week-2",
        "ztom analysis static support week-1 --latest --weights model.norm.weight",
    ),
)
def analysis_static(
    project: ProjectName,
    file: FileName,
    latest: Annotated[
        bool, typer.Option("--latest", help="Compare with the last one, not the one before.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Look at these weights only: a,b,...")
    ] = None,
    biases: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Look at these biases only: a,b,...")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="List so many tensors, the most changed first.")
    ] = 20,
    allow_config_differences: AllowConfig = None,
    allow_tokenizer_differences: AllowTokenizer = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Say how far a checkpoint is from another, tensor by tensor."""
    from ztom.cli.actions.analyses import static_command

    static_command(
        project,
        file,
        server,
        latest=latest,
        weights=weights,
        biases=biases,
        most=most,
        allowed=(allow_config_differences, allow_tokenizer_differences),
        as_json=as_json,
    )


@analysis.command(
    "inference",
    epilog=examples(
        "ztom analysis inference support/week-2 prompts.jsonl --max-new-tokens 64",
        "ztom analysis inference /models/week-2 /data/prompt_00.json /data/prompt_01.json",
    ),
)
def analysis_inference(
    model: Annotated[
        str,
        typer.Argument(
            help="PROJECT/CHECKPOINT, PROJECT/results/REQUEST.tar, or an address that the server "
            "may read."
        ),
    ],
    stimuli: Stimuli,
    base: Annotated[
        str | None, typer.Option(help="Put an adapter over this base model; else the one it names.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    batch_size: BatchSize = None,
    allow_config_differences: AllowConfig = None,
    allow_tokenizer_differences: AllowTokenizer = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Print what a checkpoint answers."""
    from ztom.cli.actions.analyses import inference_command

    inference_command(
        model,
        stimuli,
        server,
        base=base,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        allowed=(allow_config_differences, allow_tokenizer_differences),
        as_json=as_json,
    )


@analysis.command(
    "sensitivity",
    epilog=examples("ztom analysis sensitivity support week-2 prompts.jsonl --factor -1"),
)
def analysis_sensitivity(
    project: ProjectName,
    file: FileName,
    stimuli: Stimuli,
    factor: Annotated[
        float,
        typer.Option(
            help="Scale the step by this: 0 leaves it, -1 removes it, 1 applies it twice."
        ),
    ] = -1.0,
    max_new_tokens: MaxNewTokens = None,
    batch_size: BatchSize = None,
    allow_config_differences: AllowConfig = None,
    allow_tokenizer_differences: AllowTokenizer = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Print what the latest checkpoint answers, and what it does with one step scaled."""
    from ztom.cli.actions.analyses import sensitivity_command

    sensitivity_command(
        project,
        file,
        factor,
        stimuli,
        server,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        allowed=(allow_config_differences, allow_tokenizer_differences),
        as_json=as_json,
    )
