"""What a suite's content is, in one number: independent of white space and the order of keys.

``item``     sha256 of the item's canonical JSON (sorted keys, no white space, UTF-8)
``settings`` the same of the settings without the version
``suite``    sha256 over the version, the settings' digest, id and digest of every item in order,
             and the digest of the metric's code where that is the suite's own
             (`ztom.evaluation.suites.own_code`)

The last one follows from the first two, so that a lock can be checked without the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ztom.evaluation.suites.suite import Item, SuiteConfig


def canonical(value: object) -> bytes:
    """JSON in the one form that is hashed."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def item_digest(item: Item) -> str:
    """sha256 of an item, lower-case hex."""
    return _sha256(item.model_dump(mode="json"))


def settings_digest(config: SuiteConfig) -> str:
    """sha256 of the settings, lower-case hex; the version is left out."""
    return _sha256(config.model_dump(mode="json", exclude={"version"}))


def suite_digest(
    version: str, settings: str, items: Mapping[str, str], *, code: str | None = None
) -> str:
    """sha256 of a whole suite, lower-case hex.

    Args:
        version: Version of the suite.
        settings: Digest of the settings.
        items: The items' digests by id, in the order of the file.
        code: sha256 of the metric's code; None where the suite has none of its own.
    """
    whole = {"version": version, "settings": settings, "items": list(items.items())}
    return _sha256(whole if code is None else {**whole, "code": code})


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
