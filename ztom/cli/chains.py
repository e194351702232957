"""Commands on chains and variants: blend, inspect, verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import read_chain_file
from ztom.blending.inspection import ChainReport, inspect_chain
from ztom.blending.plan import parse_dtype
from ztom.blending.precision import PrecisionReport
from ztom.cli.console import plain_console
from ztom.errors import FactorError
from ztom.ledger.ledger import Ledger
from ztom.settings import Settings
from ztom.variants.recipe import Form, Recipe
from ztom.variants.record import for_the_record
from ztom.variants.verify import verify_variant
from ztom.variants.write import WriteOptions, stage_variant

_LAYERS_SHOWN = 12


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


def blend_command(
    chain_file: Path,
    factors: str,
    output: Path,
    *,
    dtype: str,
    form: Form,
    max_shard_bytes: int,
    ledger_address: str | None,
) -> None:
    """Write a blend as a variant, put it on record, and say what became of the step."""
    console = Console()
    chain = load_chain(chain_file, settings=Settings())
    options = WriteOptions(dtype=dtype, form=form, max_shard_bytes=max_shard_bytes)
    address = ledger_address or str(output.absolute().parent / "ledger.db")
    with (
        Ledger.open(address) as ledger,
        Progress(
            TextColumn("blending"), BarColumn(), DownloadColumn(), console=Console(stderr=True)
        ) as bar,
    ):
        task = bar.add_task("blend", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        with stage_variant(
            chain, parse_factors(factors), output, options=options, progress=show
        ) as staged:
            manifest = staged.seal()
            new = for_the_record(staged, manifest, action="variant.blend")
            entry = ledger.record_variant(new, partial(staged.place, manifest))
    for name, factor in zip(chain.names, staged.recipe.factors, strict=True):
        console.print(f"{factor:+.6g}  {name}", markup=False, highlight=False)
    for line in _precision(staged.precision):
        console.print(line, markup=False, highlight=False)
    for line in _other_files(staged.recipe):
        console.print(line, markup=False, highlight=False)
    console.print(
        f"variant {manifest.digest[:12]} in {output}, row {entry.sequence} of {address}",
        markup=False,
        highlight=False,
    )


def inspect_command(chain_file: Path, *, limit: float, dtype: str, as_json: bool) -> None:
    """List a chain."""
    chain = load_chain(read_chain_file(chain_file), settings=Settings())
    report = inspect_chain(chain, limit=limit, dtype=parse_dtype(dtype))
    console = plain_console()
    if as_json:
        console.print(json.dumps(asdict(report), indent=1), soft_wrap=True)
        return
    console.print(
        f"{chain.topology} of {len(report.tags)} checkpoints, {report.parameters:,} parameters, "
        f"chain {chain.digest[:12]}"
    )
    console.print(_members(report))
    console.print(_steps(report))
    console.print(_layers(report))


def verify_command(variant: Path, *, share: float, chain: Path | None) -> None:
    """Check a variant, and say how much of it was derived again."""
    config = None if chain is None else read_chain_file(chain)
    found = verify_variant(variant, share=share, settings=Settings(), chain=config)
    Console().print(
        f"{variant}: {len(found.manifest.files)} files are what the manifest says, "
        f"{found.rederived} of {found.tensors} tensors derived again and equal; "
        f"digest {found.manifest.digest[:12]}",
        markup=False,
        highlight=False,
    )


def _other_files(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.kept:
        lines.append(f"kept of the latest checkpoint: {', '.join(recipe.kept)}")
    if recipe.left_out:
        named = ", ".join(f"{path} ({why})" for path, why in recipe.left_out.items())
        lines.append(f"left out: {named}")
    return lines


def _precision(report: PrecisionReport) -> list[str]:
    if report.overall.realised is None:
        return ["nothing changes: this is the latest checkpoint"]
    return [
        f"realised over intended step {report.overall.realised:.1%}, "
        f"{report.overall.changed:.1%} of the weights change",
        *[f"warning: {warning}" for warning in report.warnings],
    ]


def _members(report: ChainReport) -> Table:
    table = Table("checkpoint", "sha256", "size", box=None, pad_edge=False)
    for tag, digest, nbytes in zip(report.tags, report.digests, report.nbytes, strict=True):
        table.add_row(tag, digest, f"{nbytes / 2**20:.1f} MiB")
    return table


def _steps(report: ChainReport) -> Table:
    table = Table(
        "step",
        "change",
        f"a factor of {report.limit:g} at {report.dtype}",
        "",
        box=None,
        pad_edge=False,
    )
    for step in report.steps:
        overall = step.bound.overall
        realised = "-" if overall.realised is None else f"{overall.realised:.1%} realised"
        warning = "low: deploy in float32 or raise the limit" if step.bound.warnings else ""
        table.add_row(
            step.name,
            f"{step.relative:.3%}",
            f"{realised}, {overall.changed:.1%} of weights",
            warning,
        )
    return table


def _layers(report: ChainReport) -> Table:
    """Relative change of each layer by each step; the middle of a deep model is left out."""
    layers = [change.layer for change in report.steps[0].layers]
    shown = layers
    if len(layers) > _LAYERS_SHOWN:
        half = _LAYERS_SHOWN // 2
        shown = [*layers[:half], "...", *layers[-half:]]
    table = Table("layer", *[step.name for step in report.steps], box=None, pad_edge=False)
    changes = [{c.layer: c.relative for c in step.layers} for step in report.steps]
    for layer in shown:
        table.add_row(layer, *[f"{by[layer]:.3%}" if layer in by else "..." for by in changes])
    return table
