"""Commands on the ledger: ``ztom log`` and ``ztom audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import LEDGER_HELP, HelpPanel, Json, JsonRows, command_group, examples
from ztom.cli.places import any_place, local_only
from ztom.errors import ConfigError, LedgerError

record_commands = command_group(None, "Records.")
audit = command_group(
    "audit",
    "Check, sign and read the audit chain.",
    "ztom audit verify runs/search/ledger.db",
)

Ledger = Annotated[str, typer.Argument(help=LEDGER_HELP)]


@record_commands.command(
    rich_help_panel=HelpPanel.RECORD,
    epilog=examples("ztom log runs/search/ledger.db", "ztom log runs/search/ledger.db --json"),
)
def log(
    ledger: Annotated[
        str, typer.Argument(help=f"{LEDGER_HELP} With --server: id of one of its projects.")
    ],
    as_json: JsonRows = False,
    server: Annotated[
        str | None, typer.Option(help="List a project's requests at the server of this address.")
    ] = None,
) -> None:
    """List what is on record: studies, variants, and the audit chain; or a project's requests."""
    if server is not None:
        from ztom.cli.actions.remote import log_command as remote_log

        remote_log(ledger, server, as_json=as_json)
        return
    require_ledger(ledger)
    from ztom.cli.actions.records import log_command

    log_command(ledger, as_json=as_json)


@audit.command(
    "verify", epilog=examples("ztom audit verify runs/search/ledger.db --head head.json")
)
def audit_verify(
    ledger: Ledger,
    head: Annotated[
        Path | None, typer.Option(help="Compare with this signed head, which was kept elsewhere.")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option(help="Accept the signature of this key only, in base64.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the audit chain and what is on disk against it; exit status 0: OK, 1: BAD."""
    require_ledger(ledger)
    from ztom.cli.actions.records import verify_command

    raise typer.Exit(verify_command(ledger, head=head, public_key=public_key, as_json=as_json))


@audit.command(
    "sign",
    epilog=examples("ztom audit sign runs/search/ledger.db --output head.json --key ~/audit.key"),
)
def audit_sign(
    ledger: Ledger,
    output: Annotated[
        Path,
        typer.Option(
            callback=any_place, help="Write the signed head into this file: not beside the ledger."
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            callback=local_only,
            help="Sign with the private key in this file; made, mode 600, if not there.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Sign the end of the audit chain, so that a cut or rewritten chain is found."""
    require_ledger(ledger)
    from ztom.cli.actions.records import sign_command

    sign_command(ledger, output=output, key=key, as_json=as_json)


@audit.command(
    "show",
    epilog=examples(
        "ztom audit show runs/search/variant --ledger runs/search/ledger.db",
        "ztom audit show 3f2a --ledger runs/search/ledger.db --bom",
        "ztom audit show variant --ledger runs/search/ledger.db --html > variant.html",
    ),
)
def audit_show(
    variant: Annotated[
        str, typer.Argument(help="Folder of the variant, its name, or the start of its digest.")
    ],
    ledger: Annotated[str, typer.Option(help=LEDGER_HELP)],
    bom: Annotated[
        bool, typer.Option("--bom", help="Print a CycloneDX bill of materials (ML-BOM) instead.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Print a page that can be printed on paper instead.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, which is what is printed anyway.")
    ] = False,
) -> None:
    """Answer an auditor: what a variant was made from, who made it, and how to derive it again."""
    require_ledger(ledger)
    from ztom.cli.actions.records import show_command

    if bom + html + as_json > 1:
        raise ConfigError("the forms exclude each other", expected="one of --bom, --html, --json")
    show_command(variant, ledger, form="bom" if bom else "html" if html else "json")


def require_ledger(address: str) -> None:
    """A ledger that is read has to be there: a wrong path must not make an empty one.

    Raises:
        LedgerError: There is no such file.
    """
    if "://" not in address and not Path(address).expanduser().is_file():
        raise LedgerError("there is no ledger", got=address, fix="Searches keep it as ledger.db.")
