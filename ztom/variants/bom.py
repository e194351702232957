"""A variant as a machine-learning bill of materials: CycloneDX 1.6 (ECMA-424), JSON.

What went in (checkpoints by digest, data sets by digest), what was measured, who did it and when.
Made from the record alone; the same record gives the same document.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from ztom.ledger.records import AuditEntry, VariantRecord
from ztom.version import __version__

_NAMESPACE = uuid.UUID("6f0d1f0c-8f4e-4e7e-9a55-0a4f3f1c1f3a")


def bill_of_materials(record: VariantRecord, entries: Sequence[AuditEntry]) -> dict[str, Any]:
    """The document of a variant.

    Args:
        record: Variant on record.
        entries: Entries of the audit chain about the variant.
    """
    recipe: Any = record.recipe
    evidence = recipe.get("evidence") or {}
    first = entries[0] if entries else None
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, record.digest)}",
        "version": 1,
        "metadata": {
            **({} if first is None else {"timestamp": first.time}),
            "tools": {
                "components": [{"type": "application", "name": "ztom", "version": __version__}]
            },
            "component": _model(record, recipe, evidence, entries),
        },
        "components": [
            _checkpoint(member, position) for position, member in enumerate(recipe["members"])
        ],
        "dependencies": [
            {
                "ref": f"variant:{record.digest}",
                "dependsOn": [f"checkpoint:{i}" for i in range(len(recipe["members"]))],
            }
        ],
    }


def _model(
    record: VariantRecord, recipe: Any, evidence: Any, entries: Sequence[AuditEntry]
) -> dict[str, Any]:
    properties = {
        "ztom:factors": ", ".join(str(factor) for factor in recipe["factors"]),
        **_groups(recipe.get("groups")),
        "ztom:topology": recipe["topology"],
        "ztom:dtype": recipe["dtype"],
        "ztom:derive-again": f"ztom verify {record.address} --share 1",
    }
    if evidence:
        properties["ztom:verdict"] = str(evidence["verdict"].get("outcome"))
        properties["ztom:insisted"] = str(evidence.get("insisted", False)).lower()
    for entry in entries:
        properties[f"ztom:audit-row-{entry.sequence}"] = (
            f"{entry.time} {entry.event.actor} {entry.event.action} {entry.hash}"
        )
    return {
        "type": "machine-learning-model",
        "bom-ref": f"variant:{record.digest}",
        "name": f"ztom-variant-{record.digest[:12]}",
        "version": record.digest,
        "hashes": [{"alg": "SHA-256", "content": record.digest}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-generation",
                "datasets": [
                    {"type": "dataset", "name": name, "contents": {"properties": [_digest(value)]}}
                    for name, value in sorted((evidence.get("data_digests") or {}).items())
                ],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(evidence)},
        },
        "properties": [{"name": name, "value": value} for name, value in properties.items()],
    }


def _groups(groups: Any) -> dict[str, str]:
    if not groups:
        return {}
    return {
        "ztom:factor-groups": ", ".join(groups["names"]),
        "ztom:groups-sha256": groups["digest"],
    }


def _metrics(evidence: Any) -> list[dict[str, str]]:
    errors = " + ".join(f"{t['weight']} * {t['function']}" for t in evidence.get("error") or ())
    return [
        {"type": errors, "value": str(value), "slice": f"{place}, {which} model"}
        for place, key in (("search data", "search_errors"), ("holdout", "holdout_errors"))
        for which, value in zip(("trained", "mastered"), evidence.get(key) or (), strict=False)
    ]


def _checkpoint(member: Any, position: int) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"checkpoint:{position}",
        "name": str(member["reference"]),
        "version": str(member["sha256"]),
        "hashes": [{"alg": "SHA-256", "content": str(member["sha256"])}],
    }


def _digest(value: str) -> dict[str, str]:
    return {"name": "sha256", "value": value}
