"""What ``ztom blend``, ``inspect`` and ``verify`` do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.table import Table

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.blending.inspection import ChainReport, inspect_chain
from ztom.blending.plan import parse_dtype
from ztom.blending.precision import PrecisionReport
from ztom.cli.console import plain_console, print_document
from ztom.io.places import StoragePlace
from ztom.io.progress import work_display
from ztom.settings import Settings
from ztom.variants.recipe import Form, Recipe
from ztom.variants.signature import signer_text
from ztom.variants.variant import blend_on_record
from ztom.variants.verify import verify_variant
from ztom.variants.write import WriteOptions

_LAYERS_SHOWN = 12


def blend_command(
    config: ChainConfig,
    factors: list[float],
    output: StoragePlace,
    *,
    dtype: str,
    form: Form,
    max_shard_bytes: int,
    ledger_address: str,
    as_json: bool = False,
    groups: FactorGroups | None = None,
) -> None:
    """Write a blend as a variant, put it on record, and say what became of the step."""
    chain = group_chain(load_chain(config, settings=Settings()), groups)
    options = WriteOptions(dtype=dtype, form=form, max_shard_bytes=max_shard_bytes)
    with work_display("blending", unit="bytes") as display:
        variant, precision = blend_on_record(
            chain,
            factors,
            output,
            options=options,
            ledger_address=ledger_address,
            progress=partial(display.show, "blending"),
        )
    steps = list(zip(chain.factor_names, variant.factors, strict=True))
    overall = precision.overall
    if as_json:
        print_document(
            {
                "variant": variant.digest,
                "path": output.absolute(),
                "factors": [{"step": name, "factor": factor} for name, factor in steps],
                "realised": overall.realised,
                "changed": overall.changed,
                "warnings": variant.warnings,
                "kept": variant.recipe.kept,
                "left_out": variant.recipe.left_out,
                "notes": variant.recipe.notes,
                "ledger": ledger_address,
                "row": variant.row,
            }
        )
        return
    console = plain_console()
    for name, factor in steps:
        console.print(f"{factor:+.6g}  {name}", soft_wrap=True)
    for line in _precision(precision):
        console.print(line, soft_wrap=True)
    for line in [*_other_files(variant.recipe), *_notes(chain)]:
        console.print(line, soft_wrap=True)
    console.print(
        f"variant {variant.digest[:12]} in {output}, row {variant.row} of {ledger_address}",
        soft_wrap=True,
    )


def inspect_command(
    config: ChainConfig, *, limit: float, dtype: str, as_json: bool = False
) -> None:
    """List a chain."""
    chain = load_chain(config, settings=Settings())
    report = inspect_chain(chain, limit=limit, dtype=parse_dtype(dtype))
    if as_json:
        print_document(report)
        return
    console = plain_console()
    console.print(
        f"{chain.topology} of {len(report.tags)} checkpoints, {report.parameters:,} parameters, "
        f"chain {chain.digest[:12]}"
    )
    console.print(_members(report))
    console.print(_steps(report))
    console.print(_layers(report))
    for line in _notes(chain):
        console.print(line, soft_wrap=True)


def verify_command(
    variant: Path, *, share: float, chain: ChainConfig | None, as_json: bool = False
) -> None:
    """Check a variant, and say how much of it was derived again."""
    check = verify_variant(variant, share=share, settings=Settings(), chain=chain)
    if as_json:
        print_document(
            {
                "variant": check.manifest.digest,
                "path": variant.absolute(),
                "files": len(check.manifest.files),
                "tensors": check.tensors,
                "rederived": check.rederived,
                "tolerated": list(check.tolerated),
                "signer": None if check.signed is None else check.signed.signer,
                "public_key": None if check.signed is None else check.signed.public_key,
            }
        )
        return
    plain_console().print(
        f"{variant}: {len(check.manifest.files)} files are what the manifest says, "
        f"{check.rederived} of {check.tensors} tensors derived again and equal; "
        f"digest {check.manifest.digest[:12]}, {signer_text(check.signed)}",
        soft_wrap=True,
    )
    if check.tolerated:
        plain_console().print(
            f"not of the variant, and let be: {', '.join(check.tolerated)}", soft_wrap=True
        )


def _other_files(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.kept:
        lines.append(f"kept of the latest checkpoint: {', '.join(recipe.kept)}")
    if recipe.left_out:
        reasons = ", ".join(f"{path} ({why})" for path, why in recipe.left_out.items())
        lines.append(f"left out: {reasons}")
    return lines


def _notes(chain: Chain) -> list[str]:
    return [f"note: {note}" for note in chain.notes]


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
