"""What ``ztom log``, ``audit verify``, ``audit sign`` and ``audit show`` do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from ztom.cli.console import moment, plain_console, print_document, print_row
from ztom.errors import LedgerError, VariantError
from ztom.io.files import write_document
from ztom.ledger.audit import check_entries, read_head, signing_key
from ztom.ledger.ledger import Ledger
from ztom.ledger.records import AuditEntry, VariantRecord
from ztom.variants.bom import bill_of_materials
from ztom.variants.manifest import file_digest, read_manifest, verify_manifest


def log_command(address: str, *, as_json: bool = False) -> None:
    """List studies, variants and the audit chain."""
    with Ledger.open(address) as ledger:
        studies, variants = ledger.studies.all(), ledger.variants.all()
        releases = ledger.variants.published()
        verdicts = {study.id: ledger.studies.proof(study.id) or {} for study in studies}
        entries = list(ledger.audit.entries())
    if as_json:
        for kind, records in (
            ("study", studies),
            ("variant", variants),
            ("release", releases),
            ("audit", entries),
        ):
            for record in records:
                print_row({"kind": kind, **asdict(record)})
        return
    console = plain_console()
    table = Table(
        "study", "name", "status", "started", "reason", "verdict", box=None, pad_edge=False
    )
    for study in studies:
        verdict = str(verdicts[study.id].get("outcome", "-"))
        row = (str(study.id), study.name, study.status, moment(study.created), study.reason or "")
        table.add_row(*row, verdict)
    console.print(table)
    table = Table("variant", "from study", "released by", "where", box=None, pad_edge=False)
    released = {(release.digest, release.address): release for release in releases}
    for variant in variants:
        release = released.get((variant.digest, variant.address))
        by = "-" if release is None else release.actor + (" insisting" * release.insisted)
        study_id = str(variant.study_id or "-")
        table.add_row(variant.digest[:12], study_id, by, variant.address)
    console.print(table)
    table = Table("row", "time", "who", "what", "to what", "note", box=None, pad_edge=False)
    for entry in entries:
        event = entry.event
        subject = event.subject.partition(":")
        short = f"{subject[0]}:{subject[2][:12]}"
        table.add_row(
            str(entry.sequence), entry.time[:19], event.actor, event.action, short, event.note
        )
    console.print(table)


def verify_command(
    address: str, *, head: Path | None, public_key: str | None, as_json: bool = False
) -> int:
    """Check the chain, then what is on disk; returns the exit status."""
    signed = None if head is None else read_head(head)
    if signed is not None:
        signed.check(public_key)
    with Ledger.open(address) as ledger:
        entries = list(ledger.audit.entries())
        rows = check_entries(entries, signed)
        problems = list(_reconcile(ledger.variants.all(), entries))
        problems += _missing_uploads(ledger.files.managed_addresses())
    signed_row = None if signed is None else signed.sequence
    if as_json:
        print_document({"rows": rows, "signed_row": signed_row, "problems": problems})
    else:
        end = "" if signed_row is None else f", row {signed_row} is the one that was signed"
        console = plain_console()
        console.print(f"{rows} rows follow from each other{end}")
        for problem in problems:
            console.print(problem, style="red", soft_wrap=True)
    return 1 if problems else 0


def _reconcile(variants: tuple[VariantRecord, ...], entries: list[AuditEntry]) -> Iterator[str]:
    """What is on disk and what is on record, where they differ.

    Folders are looked for where variants on record were written, and beside them.
    """
    audited = {entry.event.after for entry in entries}
    for variant in variants:
        if variant.digest not in audited:
            yield f"variant {variant.digest[:12]} has no row in the audit chain"
        try:
            digest = verify_manifest(Path(variant.address)).digest
        except VariantError as error:
            yield f"variant {variant.digest[:12]} at {variant.address}: {error}"
            continue
        if digest != variant.digest:
            yield f"{variant.address} holds {digest[:12]}, {variant.digest[:12]} is on record"
    known = {Path(variant.address) for variant in variants}
    for parent in sorted({path.parent for path in known}):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if folder not in known and (folder / "recipe.json").is_file():
                yield f"{folder} is a variant that is not on record"


def _missing_uploads(addresses: frozenset[str]) -> Iterator[str]:
    """Uploads of a server are kept under the sha256 of their bytes."""
    for address in sorted(addresses):
        path = Path(address)
        if path.is_dir():
            continue  # a mastered checkpoint: a variant
        if not path.is_file():
            yield f"{address} is on record and not on disk"
        elif file_digest(path) != path.name.partition(".")[0]:
            yield f"{address} is not what was uploaded"


def sign_command(address: str, *, output: Path, key: Path, as_json: bool = False) -> None:
    """Sign the end of the chain into a file."""
    with Ledger.open(address) as ledger:
        ledger.audit.check()
        head = ledger.audit.sign(signing_key(key), time=datetime.now(UTC).isoformat())
    write_document(output, head.model_dump_json(indent=1) + "\n")
    if as_json:
        print_document({"path": output.absolute(), "head": head})
        return
    plain_console().print(
        f"row {head.sequence} signed into {output}; public key {head.public_key}", soft_wrap=True
    )


def show_command(variant: str, address: str, *, bom: bool) -> None:
    """Everything on record about one variant, as JSON: our own form, or CycloneDX."""
    digest = variant
    if Path(variant).is_dir():
        digest = read_manifest(Path(variant)).digest
    with Ledger.open(address) as ledger:
        records = ledger.variants.all(starting_with=digest)
        entries = [e for e in ledger.audit.entries() if (e.event.after or "").startswith(digest)]
    if not records or not digest:
        raise LedgerError("no such variant is on record", got=variant)
    if len({record.digest for record in records}) > 1:
        raise LedgerError(
            "several variants on record begin like this",
            got=variant,
            fix="Give more of the digest: `ztom log` lists them.",
        )
    print_document(bill_of_materials(records[0], entries) if bom else _answer(records, entries))


def _answer(records: Sequence[VariantRecord], entries: list[AuditEntry]) -> dict[str, Any]:
    """Checkpoints, factors, data, error, who, when, verdict, and how to derive the bytes again."""
    record = records[0]
    recipe: Any = record.recipe
    evidence = recipe["evidence"] or {}
    return {
        "variant": record.digest,
        "addresses": [copy.address for copy in records],
        "checkpoints": recipe["members"],
        "topology": recipe["topology"],
        "factors": recipe["factors"],
        "dtype": recipe["dtype"],
        "error": evidence.get("error"),
        "data": evidence.get("data_digests"),
        "verdict": evidence.get("verdict"),
        "insisted": evidence.get("insisted"),
        "study": record.study_id,
        "events": [
            {"row": e.sequence, "time": e.time, "who": e.event.actor, "what": e.event.action}
            for e in entries
        ],
        "derive_again": f"ztom verify {record.address} --share 1",
    }
