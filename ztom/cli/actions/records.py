"""What ``ztom log``, ``audit verify``, ``audit sign`` and ``audit show`` do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from ztom.cli.console import moment, plain_console, print_document, print_row
from ztom.errors import AuditError, LedgerError, VariantError
from ztom.io.files import write_document
from ztom.io.places import StoragePlace
from ztom.io.signatures import signing_key
from ztom.ledger.audit import check_entries, read_head
from ztom.ledger.ledger import Ledger
from ztom.ledger.records import AuditEntry, VariantRecord
from ztom.variants.audit_page import render_audit_page
from ztom.variants.bom import bill_of_materials
from ztom.variants.manifest import file_digest, read_manifest, verify_manifest

#: In which form a variant's record is printed.
ShowForm = Literal["json", "bom", "html"]


def log_command(address: str, *, as_json: bool = False) -> None:
    """List studies, variants and the audit chain."""
    with Ledger.read(address) as ledger:
        studies, variants = ledger.studies.all(), ledger.variants.all()
        releases = ledger.variants.published()
        verdicts = {study.id: ledger.studies.proof(study.id) or {} for study in studies}
        entries = list(ledger.audit.entries())
        names = _names(ledger)
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
    table = Table("variant", "name", "from study", "released by", "where", box=None, pad_edge=False)
    released = {(release.digest, release.address): release for release in releases}
    for variant in variants:
        release = released.get((variant.digest, variant.address))
        by = "-" if release is None else release.actor + (" insisting" * release.insisted)
        study_name = names.get(f"study:{variant.study_id}", "-")
        name = Path(variant.address).name
        table.add_row(variant.digest[:12], name, study_name, by, variant.address)
    console.print(table)
    table = Table("row", "time", "who", "what", "to what", "note", box=None, pad_edge=False)
    for entry in entries:
        event = entry.event
        subject = _named(event.subject, names)
        actor = names.get(event.actor, event.actor)
        table.add_row(
            str(entry.sequence), entry.time[:19], actor, event.action, subject, event.note
        )
    console.print(table)


def _names(ledger: Ledger) -> dict[str, str]:
    """What the subjects of the audit chain are called, by ``kind:id``."""
    names = {f"study:{study.id}": study.name for study in ledger.studies.all()}
    names |= {f"variant:{v.digest}": Path(v.address).name for v in ledger.variants.all()}
    names |= {f"user:{user.id}": user.username for user in ledger.accounts.all()}
    projects = ledger.projects.visible_to(None)
    return names | {f"project:{project.id}": project.name for project in projects}


def _named(subject: str, names: Mapping[str, str]) -> str:
    """A subject of the chain with its name, so that it is known and can be looked up."""
    kind, _, identity = subject.partition(":")
    name = names.get(subject)
    return f"{kind}:{identity[:12]}" + ("" if name is None else f" {name}")


def verify_command(
    address: str, *, head: Path | None, public_key: str | None, as_json: bool = False
) -> int:
    """Say OK or BAD, why, and what nobody could see; returns the exit status: 0 OK, 1 BAD."""
    signed = None if head is None else read_head(head)
    with Ledger.read(address) as ledger:
        entries = list(ledger.audit.entries())
        variants = ledger.variants.all()
        uploads = ledger.files.managed_addresses()
    problems: list[str] = []
    try:
        if signed is not None:
            signed.check(public_key)
        check_entries(entries, signed)
        if not entries and signed is None:
            raise AuditError(
                "the audit chain has no rows: nothing was ever done, or all of it was removed",
                fix="A signed head of the empty chain (--head) would say which.",
            )
    except AuditError as error:
        problems.append(str(error))
    problems += [*_reconcile(variants, entries), *_missing_uploads(uploads)]
    unseen = list(_unseen(variants, uploads, is_signed=signed is not None, public_key=public_key))
    signed_row = None if signed is None else signed.sequence
    if as_json:
        outcome = {"outcome": "BAD" if problems else "OK", "rows": len(entries)}
        print_document(
            {**outcome, "signed_row": signed_row, "problems": problems, "unseen": unseen}
        )
        return 1 if problems else 0
    console = plain_console()
    end = "" if signed_row is None else f", row {signed_row} is the one that was signed"
    if problems:
        console.print(f"BAD: {len(problems)} of what was checked does not hold", style="red")
    else:
        console.print(f"OK: {len(entries)} rows follow from each other{end}", style="green")
    for problem in problems:
        console.print(problem, style="red")
    for line in unseen:
        console.print(f"not seen: {line}")
    return 1 if problems else 0


def _unseen(
    variants: Sequence[VariantRecord],
    uploads: frozenset[str],
    *,
    is_signed: bool,
    public_key: str | None,
) -> Iterator[str]:
    """What this look could not tell, so that nobody takes it for checked."""
    if not is_signed:
        yield "whether rows were cut off at the end, or all written anew (give --head)"
    elif public_key is None:
        yield "whether the head was signed with your key (give --public-key)"
    away = [address for address in (v.address for v in variants) if "://" in address]
    away += [address for address in sorted(uploads) if "://" in address]
    for address in away:
        yield f"{address}: it is not on this machine"


def _reconcile(variants: tuple[VariantRecord, ...], entries: list[AuditEntry]) -> Iterator[str]:
    """What is on disk and what is on record, where they differ.

    Folders are looked for where variants on record were written, and beside them.
    """
    audited = {entry.event.after for entry in entries}
    for variant in variants:
        if variant.digest not in audited:
            yield f"variant {variant.digest[:12]} has no row in the audit chain"
        if "://" in variant.address:
            continue
        try:
            digest = verify_manifest(Path(variant.address)).digest
        except VariantError as error:
            yield f"variant {variant.digest[:12]} at {variant.address}: {error}"
            continue
        if digest != variant.digest:
            yield f"{variant.address} holds {digest[:12]}, {variant.digest[:12]} is on record"
    known = {Path(variant.address) for variant in variants if "://" not in variant.address}
    for parent in sorted({path.parent for path in known}):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if folder not in known and (folder / "recipe.json").is_file():
                yield f"{folder} is a variant that is not on record"


def _missing_uploads(addresses: frozenset[str]) -> Iterator[str]:
    """Uploads of a server are kept under the sha256 of their bytes."""
    for address in sorted(addresses):
        if "://" in address:
            continue
        path = Path(address)
        if path.is_dir():
            continue  # a mastered checkpoint: a variant
        if not path.is_file():
            yield f"{address} is on record and not on disk"
        elif file_digest(path) != path.name.partition(".")[0]:
            yield f"{address} is not what was uploaded"


def sign_command(address: str, *, output: StoragePlace, key: Path, as_json: bool = False) -> None:
    """Sign the end of the chain into a file."""
    with Ledger.read(address) as ledger:
        ledger.audit.check()
        head = ledger.audit.sign(signing_key(key), time=datetime.now(UTC).isoformat())
    write_document(output, head.model_dump_json(indent=1) + "\n")
    if as_json:
        print_document({"path": output.absolute(), "head": head})
        return
    plain_console().print(
        f"row {head.sequence} signed into {output}; public key {head.public_key}", soft_wrap=True
    )


def show_command(variant: str, address: str, *, form: ShowForm) -> None:
    """Everything on record about one variant: as JSON, as a CycloneDX document, or as a page.

    Raises:
        LedgerError: No variant on record is named like this, or several are.
    """
    with Ledger.read(address) as ledger:
        records = _records_of(variant, ledger)
        digest = records[0].digest
        entries = [e for e in ledger.audit.entries() if e.event.after == digest]
        names = _names(ledger)
    if form == "bom":
        print_document(bill_of_materials(records[0], entries))
    elif form == "html":
        study = names.get(f"study:{records[0].study_id}")
        sys.stdout.write(render_audit_page(_answer(records, entries), study=study))
    else:
        print_document(_answer(records, entries))


def _records_of(variant: str, ledger: Ledger) -> Sequence[VariantRecord]:
    """The copies of one variant, by its folder, the start of its digest or its name."""
    digest = variant
    if Path(variant).is_dir():
        digest = read_manifest(Path(variant)).digest
    records = ledger.variants.all(starting_with=digest) if digest else ()
    if not records:
        records = tuple(v for v in ledger.variants.all() if Path(v.address).name == variant)
    if not records:
        raise LedgerError("no such variant is on record", got=variant)
    digests = sorted({record.digest for record in records})
    if len(digests) > 1:
        raise LedgerError(
            "several variants on record begin, or are called, like this",
            got=variant,
            expected=f"one of {', '.join(digest[:12] for digest in digests[:5])}",
            fix="Give more of the digest: `ztom log` lists them.",
        )
    return records


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
        **({"groups": recipe["groups"]["names"]} if recipe.get("groups") else {}),
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
