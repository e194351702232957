"""The ``ztom`` command: what it offers, and how errors reach the user."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ztom import __version__
from ztom.cli.gate.options import gate
from ztom.cli.places import local_only
from ztom.cli.suites import suite
from ztom.errors import ZtomError

app = typer.Typer(
    name="ztom",
    help="Find, prove, write and serve the best blend of a chain of checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

audit = typer.Typer(help="Check, sign and read the audit chain.", no_args_is_help=True)
app.add_typer(audit, name="audit")

admin = typer.Typer(help="Look after a server: accounts and keys.", no_args_is_help=True)
app.add_typer(admin, name="admin")

project = typer.Typer(help="Projects of a server.", no_args_is_help=True)
app.add_typer(project, name="project")

app.add_typer(suite, name="suite")
app.add_typer(gate, name="gate")

release = typer.Typer(help="Releases: how a candidate gets its traffic.", no_args_is_help=True)
app.add_typer(release, name="release")

_PASSED_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}

_LEDGER = "The ledger: a file or a SQLAlchemy address."


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ztom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Find, prove, write and serve the best blend of a chain of checkpoints."""


@app.command(context_settings=_PASSED_ON)
def search(context: typer.Context) -> None:
    """Search the factors of a chain, prove them, write the variant (--example, --help).

    With --project ID, and --server ADDRESS or ZTOM_SERVER: of a project's chain, on the server.
    """
    if any(each.partition("=")[0] in ("--project", "--server") for each in context.args):
        raise typer.Exit(_remote_search(context.args))
    from tune_search.__main__ import main as run

    raise typer.Exit(run(context.args, program="ztom search"))


def _remote_search(arguments: list[str]) -> int:
    import argparse

    from ztom.cli.remote import search_command

    parser = argparse.ArgumentParser(prog="ztom search")
    parser.add_argument("config", type=Path, help="the search's YAML file")
    parser.add_argument("--project", required=True, help="id of the project on the server")
    parser.add_argument("--server", help="its address; else ZTOM_SERVER")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    return search_command(options.config, options.set, options.project, options.server)


@app.command()
def blend(
    chain: Annotated[Path, typer.Argument(help="The chain's YAML file.")],
    factors: Annotated[str, typer.Option(help="One per transition: 0.1,-0.05,0")],
    output: Annotated[Path, typer.Option(callback=local_only, help="Folder of the variant to be.")],
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write one LoRA adapter instead of full weights.")
    ] = False,
    max_shard_gib: Annotated[float, typer.Option(min=1e-6, help="Largest shard, GiB.")] = 2.0,
    ledger: Annotated[
        str | None, typer.Option(help=_LEDGER + " Beside the output if none.")
    ] = None,
) -> None:
    """Set factors by hand and write the blend as a variant."""
    from ztom.cli.chains import blend_command

    blend_command(
        chain,
        factors,
        output,
        dtype=dtype,
        form="adapter" if adapter else "dense",
        max_shard_bytes=int(max_shard_gib * 2**30),
        ledger_address=ledger,
    )


@app.command()
def inspect(
    chain: Annotated[Path, typer.Argument(help="The chain's YAML file.")],
    limit: Annotated[float, typer.Option(min=1e-9, help="The bound on each factor.")] = 0.1,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a chain: sizes, digests, how far each step moved, what a bound can do."""
    from ztom.cli.chains import inspect_command

    inspect_command(chain, limit=limit, dtype=dtype, as_json=as_json)


@app.command()
def verify(
    variant: Annotated[Path, typer.Argument(help="The variant's folder.")],
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the tensors to derive again.")
    ] = 0.1,
    chain: Annotated[
        Path | None, typer.Option(help="Where the chain is now, if not where it was.")
    ] = None,
) -> None:
    """Check a variant's manifest and derive a share of its tensors again."""
    from ztom.cli.chains import verify_command

    verify_command(variant, share=share, chain=chain)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A variant's folder, or a checkpoint.")],
    suite: Annotated[
        list[Path] | None, typer.Option(help="A suite, or a folder of suites; several times.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks of lm-eval: names or YAML files, with commas.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model that an adapter is of.")] = None,
    engine: Annotated[str, typer.Option(help="vllm or torch.")] = "vllm",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_model_len: Annotated[int | None, typer.Option(min=8)] = None,
    chat_template: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
    out: Annotated[Path, typer.Option(callback=local_only, help="Folder of the results.")] = Path(
        "evaluation"
    ),
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask for every answer.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items of each.")] = None,
) -> None:
    """Run a model on suites; exit status 3 where something could not be run or scored."""
    from ztom.cli.evaluation import EvalRequest, eval_command

    fields = {
        "name": engine,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "chat_template": chat_template,
    }
    request = EvalRequest(
        model=model,
        base=base,
        suites=suite or [],
        tasks=[name.strip() for name in (tasks or "").split(",") if name.strip()],
        engine=fields,
        out=out,
        use_cache=not no_cache,
        limit=limit,
    )
    raise typer.Exit(eval_command(request))


@app.command()
def log(
    ledger: Annotated[str, typer.Argument(help=_LEDGER + " With --server: a project's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")] = False,
    server: Annotated[str | None, typer.Option(help="Address of a server.")] = None,
) -> None:
    """List what is on record: studies, variants, and the audit chain; or a project's requests."""
    if server is not None:
        from ztom.cli.remote import log_command as remote_log

        remote_log(ledger, server)
        return
    from ztom.cli.records import log_command

    log_command(ledger, as_json=as_json)


_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A further option.")
]
_Server = Annotated[str | None, typer.Option(help="Address of the server; else ZTOM_SERVER.")]
_Project = Annotated[str, typer.Argument(help="The project's id.")]


@app.command()
def login(
    server: Annotated[str, typer.Argument(help="Address of the server.")],
    username: Annotated[str, typer.Argument(help="Name or e-mail address.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Log in to a server; the token is kept for the commands that speak to it."""
    from ztom.cli.remote import login_command

    login_command(server, username, stdin=password_stdin)


@project.command("list")
def project_list(server: _Server = None) -> None:
    """List projects and their files."""
    from ztom.cli.remote import projects_command

    projects_command(server)


@project.command("create")
def project_create(
    name: Annotated[str, typer.Argument(help="Of the project.")],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    server: _Server = None,
) -> None:
    """Make a project and print its id."""
    from ztom.cli.remote import create_project_command

    create_project_command(name, description, server)


@project.command("add")
def project_add(
    project: _Project,
    paths: Annotated[list[str], typer.Argument(help="Folders or tars, in training order.")],
    base: Annotated[bool, typer.Option("--base", help="It is the base model.")] = False,
    pointer: Annotated[
        bool, typer.Option("--pointer", help="Leave it where it is; the server reads it there.")
    ] = False,
    server: _Server = None,
) -> None:
    """Add checkpoints to a project."""
    from ztom.cli.remote import add_command

    add_command(project, paths, base=base, pointer=pointer, server=server)


@project.command("download")
def project_download(
    project: _Project,
    file: Annotated[str, typer.Argument(help="The file's id.")],
    output: Annotated[
        Path, typer.Option(callback=local_only, help="A folder, or a name that ends in .tar.")
    ],
    server: _Server = None,
) -> None:
    """Save a checkpoint of a project."""
    from ztom.cli.remote import download_command

    download_command(project, file, output, server)


@audit.command("verify")
def audit_verify(
    ledger: Annotated[str, typer.Argument(help=_LEDGER)],
    head: Annotated[Path | None, typer.Option(help="A signed head that was kept.")] = None,
    public_key: Annotated[
        str | None, typer.Option(help="Base64: whose signature the head has to carry.")
    ] = None,
) -> None:
    """Check the audit chain row by row, and the variants on disk against it."""
    from ztom.cli.records import verify_command

    raise typer.Exit(verify_command(ledger, head=head, public_key=public_key))


@audit.command("sign")
def audit_sign(
    ledger: Annotated[str, typer.Argument(help=_LEDGER)],
    output: Annotated[
        Path,
        typer.Option(callback=local_only, help="Where the head goes: not beside the ledger."),
    ],
    key: Annotated[
        Path,
        typer.Option(callback=local_only, help="The private key; made, mode 600, if none."),
    ],
) -> None:
    """Sign the end of the audit chain, so that a cut or rewritten chain is found."""
    from ztom.cli.records import sign_command

    sign_command(ledger, output=output, key=key)


@audit.command("show")
def audit_show(
    variant: Annotated[str, typer.Argument(help="A variant's folder, or its digest's start.")],
    ledger: Annotated[str, typer.Option(help=_LEDGER)],
    bom: Annotated[
        bool, typer.Option("--bom", help="As a CycloneDX bill of materials (ML-BOM).")
    ] = False,
) -> None:
    """Answer an auditor: what a variant was made from, who made it, and how to derive it again."""
    from ztom.cli.records import show_command

    show_command(variant, ledger, bom=bom)


@app.command()
def serve(
    variant: Annotated[Path, typer.Argument(help="The variant's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Model name for clients.")] = None,
    min_replicas: Annotated[int, typer.Option(min=0)] = 1,
    max_replicas: Annotated[int, typer.Option(min=1)] = 1,
    target_ongoing_requests: Annotated[
        float, typer.Option(help="Requests in work per replica that scaling aims at.")
    ] = 16,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_model_len: Annotated[int | None, typer.Option(min=1)] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Serve a variant with an OpenAI-compatible API until Ctrl-C."""
    from ztom.cli.serving import serve_command

    serve_command(
        {
            "variant": variant,
            "name": name,
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": target_ongoing_requests,
            "dtype": dtype,
            "max_model_len": max_model_len,
            "tensor_parallel_size": tensor_parallel_size,
        },
        host=host,
        port=port,
    )


_Alias = Annotated[str, typer.Argument(help="The endpoint: what clients write in model.")]


@app.command()
def deploy(
    variant: Annotated[str, typer.Argument(help="The variant's folder, as the server sees it.")],
    alias: Annotated[str, typer.Option(help="What clients write in model.")],
    canary: Annotated[
        float | None, typer.Option(min=0, max=100, help="Percent of the requests, by hand.")
    ] = None,
    shadow: Annotated[
        float | None, typer.Option(min=0, max=100, help="Percent that is copied, by hand.")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="All requests at once, no release.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="The same, into the running engine (live_swap).")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(help="YAML file of the release's plan; else the default one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name; the alias if none.")] = None,
    project_id: Annotated[
        str | None, typer.Option("--project", help="That it belongs to; administrators need none.")
    ] = None,
    verdict: Annotated[
        Path | None, typer.Option(help="What ztom gate said of it: put on record first.")
    ] = None,
    insist: Annotated[
        bool, typer.Option("--insist", help="Although neither gate nor search let it; recorded.")
    ] = False,
    set: _Set = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait; 0 returns at once.")] = 600,
    server: _Server = None,
) -> None:
    """Serve a variant under an alias; by default a release moves the traffic step by step."""
    from ztom.cli.endpoints import deploy_command
    from ztom.cli.server import parse_settings

    wishes = {
        "canary": canary,
        "shadow": shadow,
        "now": now,
        "live": live,
        "name": name,
        "project_id": project_id,
        "verdict": verdict,
        "insist": insist,
    }
    raise typer.Exit(
        deploy_command(
            variant,
            alias,
            wishes=wishes,
            plan=plan,
            options=parse_settings(set or []),
            wait_s=wait,
            server=server,
        )
    )


@app.command()
def promote(alias: _Alias, server: _Server = None) -> None:
    """Make an endpoint's candidate its stable variant, whatever a release says."""
    from ztom.cli.endpoints import promote_command

    promote_command(alias, server)


@app.command()
def rollback(alias: _Alias, server: _Server = None) -> None:
    """Take an endpoint's candidate away; without one, go back to what was stable before."""
    from ztom.cli.endpoints import rollback_command

    rollback_command(alias, server)


@app.command()
def status(server: _Server = None) -> None:
    """Show endpoints with their traffic, deployments, and releases under way."""
    from ztom.cli.endpoints import status_command

    status_command(server)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="YAML file of endpoints.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove endpoints that the file does not name.")
    ] = False,
    server: _Server = None,
) -> None:
    """Make endpoints what a file says: first the difference, then the change."""
    from ztom.cli.endpoints import apply_command

    raise typer.Exit(apply_command(file, yes=yes, prune=prune, server=server))


@release.command("list")
def release_list(
    alias: Annotated[str | None, typer.Argument(help="Of one endpoint.")] = None,
    server: _Server = None,
) -> None:
    """List releases, newest first."""
    from ztom.cli.endpoints import releases_command

    releases_command(alias, server)


@release.command("watch")
def release_watch(
    release: Annotated[str, typer.Argument(help="Its id, or an endpoint's alias.")],
    server: _Server = None,
) -> None:
    """Show a release live until it has ended; the exit status is 0 if it was promoted."""
    from ztom.cli.endpoints import watch_command

    raise typer.Exit(watch_command(release, server))


@release.command("tell")
def release_tell(
    release: Annotated[str, typer.Argument(help="Its id.")],
    command: Annotated[str, typer.Argument(help="promote, rollback, resume or abort.")],
    server: _Server = None,
) -> None:
    """Tell a release something."""
    from ztom.cli.endpoints import command_release

    command_release(release, command, server)


_Data = Annotated[Path, typer.Option(callback=local_only, help="The server's data folder.")]
_LedgerOption = Annotated[str | None, typer.Option(help=_LEDGER + " ledger.db in it if none.")]


@app.command()
def up(
    data: _Data = Path("ztom-data"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    ledger: _LedgerOption = None,
    set: _Set = None,
) -> None:
    """Run the server on this machine: projects, searches and weight edits over HTTP."""
    from ztom.cli.server import server_config, up_command

    up_command(server_config(data, ledger, set or []), host=host, port=port)


@admin.command("create")
def admin_create(
    username: Annotated[str, typer.Argument(help="To log in with.")],
    address: Annotated[str, typer.Argument(help="E-mail address.")],
    data: _Data = Path("ztom-data"),
    ledger: _LedgerOption = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Make an administrator's account; the first one of a server is made like this."""
    from ztom.cli.server import create_admin_command, server_config

    create_admin_command(username, address, server_config(data, ledger, []), stdin=password_stdin)


@admin.command("rotate-key")
def admin_rotate_key(data: _Data = Path("ztom-data")) -> None:
    """Sign tokens with a new key; the one before still verifies until the next rotation."""
    from ztom.cli.server import rotate_key_command, server_config

    rotate_key_command(server_config(data, None, []))


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option(callback=local_only, help="Where everything goes.")
    ] = Path("demo-out"),
    medical: Annotated[
        Path | None,
        typer.Option(help="Instead: a chat data set (train, search, holdout .jsonl) to work on."),
    ] = None,
    limit: Annotated[float, typer.Option(min=1e-6, help="The bound on each factor.")] = 1.0,
    evaluations: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 50,
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving until Ctrl-C.")] = False,
) -> None:
    """Train a small chain on this machine, master it, and ask it something."""
    from ztom.cli.demo import run_demo

    raise typer.Exit(
        run_demo(folder, medical=medical, limit=limit, evaluations=evaluations, stay=stay)
    )


def main() -> None:
    """Run the command line; errors become one message and a status."""
    # Waiting threads that spin take the cores that the working ones need; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        app()
    except ZtomError as error:
        console = Console(stderr=True)
        console.print(
            f"{type(error).__name__}: {error}",
            style="red",
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
