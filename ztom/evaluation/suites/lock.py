"""``suite.lock``: what a suite was when its version was agreed on.

JSON with the version, the digest of the settings, the digest of each item by id in the order of the
file, that of the metric's code where it lies in the suite's folder
(`ztom.evaluation.suites.own_code`: the file alone, not what it imports), and the digest over all
that. Results of one version are comparable only as long as the items are the same, therefore: other
items, settings or code take a higher version, and only then another lock.

The lock keeps honest people honest. Whoever can write the folder can write the lock too: it is the
review of a changed lock, and the digest on record with every result, that tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from ztom.errors import EvaluationError
from ztom.evaluation.suites.digests import item_digest, settings_digest, suite_digest
from ztom.evaluation.suites.read import (
    MAX_ITEMS_BYTES,
    evaluation_errors,
    load_suite,
    require_size,
)
from ztom.evaluation.suites.suite import Item, Name, SemanticVersion, Suite
from ztom.io.files import write_document
from ztom.io.problems import check_model
from ztom.io.text import Place
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.text_files import read_text

LOCK_FILE = "suite.lock"
_SHOWN = 20

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Lock(BaseModel):
    """``suite.lock``.

    Attributes:
        format: Version of the form of the file and of the digests.
        name: Name of the suite.
        version: Version of the suite.
        settings: Digest of the settings.
        items: Digest of each item by id, in the order of the file.
        code: Digest of the file with the suite's function; absent where none lies in its folder.
        digest: Digest over all these, which is that of the suite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: Name
    version: SemanticVersion
    settings: Digest
    items: dict[str, Digest]
    code: Digest | None = None
    digest: Digest


@dataclass(frozen=True)
class Changes:
    """What became of a suite.

    Attributes:
        old_version: Version of the suite before.
        new_version: Version of the suite after.
        settings: Whether some setting other than the version changed.
        code: Whether the code of the suite's function changed, came or went.
        added: Ids of new items.
        removed: Ids of items that are gone.
        changed: Ids of items that are not what they were.
        reordered: Whether the items that stayed are in another order.
    """

    old_version: str
    new_version: str
    settings: bool
    code: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    reordered: bool

    @property
    def content(self) -> bool:
        """Whether something other than the version changed."""
        return bool(
            self.settings
            or self.code
            or self.added
            or self.removed
            or self.changed
            or self.reordered
        )

    @property
    def any(self) -> bool:
        """Anything changed."""
        return self.content or self.old_version != self.new_version

    @property
    def raised(self) -> bool:
        """The version is higher than before."""
        return _order(self.new_version) > _order(self.old_version)

    def lines(self) -> Iterator[str]:
        """What changed, for people."""
        if self.old_version != self.new_version:
            yield f"version: {self.old_version} -> {self.new_version}"
        if self.settings:
            yield "settings changed"
        if self.code:
            yield "the function's code changed"
        for word, ids in (
            ("added", self.added),
            ("removed", self.removed),
            ("changed", self.changed),
        ):
            if ids:
                rest = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
                yield f"{len(ids)} {word}: {', '.join(ids[:_SHOWN])}{rest}"
        if self.reordered:
            yield "items in another order"

    def advice(self) -> str:
        """What is missing for a lock that fits; only where anything changed."""
        if self.raised:
            return "The version is raised; `ztom suite lock` is missing."
        if not self.content:
            return f"Only the version changed, and {self.new_version} is no higher one."
        return f"Only a version above {self.old_version} in suite.yaml is missing, and then a lock."


def lock_of(suite: Suite) -> Lock:
    """The lock that fits a suite."""
    return Lock(
        name=suite.config.name,
        version=suite.config.version,
        settings=settings_digest(suite.config),
        items={item.id: item_digest(item) for item in suite.items},
        code=suite.code,
        digest=suite.digest,
    )


def compare(old: Lock, new: Lock) -> Changes:
    """What changed from one to the other."""
    stayed = [item for item in new.items if item in old.items]
    return Changes(
        old_version=old.version,
        new_version=new.version,
        settings=old.settings != new.settings,
        code=old.code != new.code,
        added=tuple(item for item in new.items if item not in old.items),
        removed=tuple(item for item in old.items if item not in new.items),
        changed=tuple(item for item in stayed if old.items[item] != new.items[item]),
        reordered=stayed != [item for item in old.items if item in new.items],
    )


def field_changes(old: Suite, new: Suite) -> Iterator[str]:
    """Texts on which settings and which fields of items changed; what items say is not shown."""
    before, after = old.config.model_dump(mode="json"), new.config.model_dump(mode="json")
    for name in after:
        if name != "version" and before[name] != after[name]:
            yield f"{name}: {before[name]!r:.60} -> {after[name]!r:.60}"
    known = {item.id: item for item in old.items}
    for item in new.items:
        was = known.get(item.id, item)
        fields = [name for name in Item.model_fields if getattr(was, name) != getattr(item, name)]
        if fields:
            yield f"{item.id}: {', '.join(fields)}"


def lock_suite(folder: Path) -> Lock:
    """Write the lock of a suite; nothing is written where it fits already.

    Raises:
        EvaluationError: The suite or its lock cannot be read, or the suite changed without a
            higher version.
        StorageError: The lock cannot be written; the old one stands.
    """
    new = lock_of(load_suite(folder))
    path = folder / LOCK_FILE
    if path.exists():
        changes = compare(read_lock(path), new)
        if not changes.any:
            return new
        if not changes.raised:
            raise _changed(folder, changes)
    write_document(path, f"{new.model_dump_json(indent=1, exclude_none=True)}\n")
    return new


def lock_changes(folder: Path) -> Changes:
    """What became of a suite since it was locked.

    Raises:
        EvaluationError: The suite or its lock cannot be read.
    """
    new = lock_of(load_suite(folder))
    return compare(read_lock(folder / LOCK_FILE), new)


def load_locked(folder: Path) -> Suite:
    """Read a suite that is what its lock says.

    Raises:
        EvaluationError: There is no lock, or it says something else; or as `load_suite`.
    """
    suite = load_suite(folder)
    changes = compare(read_lock(folder / LOCK_FILE), lock_of(suite))
    if changes.any:
        raise _changed(folder, changes)
    return suite


def read_lock(path: Path) -> Lock:
    """Read a ``suite.lock``.

    Raises:
        EvaluationError: It is missing or malformed, or its digest is not that of its entries.
    """
    if not path.exists():
        raise EvaluationError(
            f"{path} does not exist", fix=f"`ztom suite lock {path.parent}` writes it."
        )
    require_size(path, MAX_ITEMS_BYTES)
    with evaluation_errors():
        content = parse_json(read_text(path), place=Place(path, 1))
    lock = check_model(Lock, content, wrong=f"{path} is not a suite's lock", kind=EvaluationError)
    if lock.digest != suite_digest(lock.version, lock.settings, lock.items, code=lock.code):
        raise EvaluationError(
            f"{path} does not hold together: its digest is not that of its entries",
            fix="It was edited or merged by hand: take back the one that was locked.",
        )
    return lock


def _changed(folder: Path, changes: Changes) -> EvaluationError:
    return EvaluationError(
        f"{folder} is not what its lock says", got="; ".join(changes.lines()), fix=changes.advice()
    )


def _order(version: str) -> list[tuple[int, str]]:
    """Sorts semantic versions; by length first, so that no number is too long to convert."""
    return [(len(part), part) for part in version.split(".")]
