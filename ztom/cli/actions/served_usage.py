"""What ``ztom usage`` does."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ztom.cli.actions.remote import connect
from ztom.cli.console import plain_console, print_document
from ztom.wire.usage import UsageBy, UsageLine, UsageReport


def usage_command(server: str | None, *, as_json: bool = False, **options: Any) -> None:
    """Show who used how much.

    Args:
        server: Address of the server.
        as_json: Whether to print the report as JSON.
        options: What `ztom.client.accounts.AccountCalls.usage` takes.
    """
    with connect(server) as client:
        report = client.accounts.usage(**options)
    if as_json:
        print_document(report.model_dump(mode="json", by_alias=True))
        return
    console = plain_console()
    console.print(f"{report.first} to {report.last}")
    console.print(_table(report))
    for sentence in report.not_counted:
        console.print(f"not counted: {sentence}", soft_wrap=True, markup=False)


def _table(report: UsageReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for by in report.by:
        table.add_column(by)
    for name in ("requests", "failed", "tokens in", "tokens out", "busy s", "idle s", "held s"):
        table.add_column(name, justify="right")
    table.add_column("cost", justify="right")
    for line in report.lines:
        table.add_row(*(escape(_name(line, part)) for part in report.by), *_numbers(line))
    if len(report.lines) != 1:
        names = ["all", *("" for _ in report.by[1:])]
        table.add_row(*names[: len(report.by)], *_numbers(report.total))
    return table


def _name(line: UsageLine, by: UsageBy) -> str:
    match by:
        case UsageBy.KEY:
            return line.key or line.key_id or "(nobody's)"
        case UsageBy.PROJECT:
            return line.project or line.project_id or "(operator's)"
        case UsageBy.VARIANT:
            return line.variant or ""
        case UsageBy.DAY:
            return line.day or ""


def _numbers(line: UsageLine) -> list[str]:
    counts = (line.requests, line.failed, line.prompt_tokens, line.completion_tokens)
    seconds = (line.busy_seconds, line.idle_seconds, line.held_seconds)
    cost = "" if line.cost is None else f"{line.cost:,.4g}"
    return [*(f"{count:,}" for count in counts), *(f"{second:,.1f}" for second in seconds), cost]
