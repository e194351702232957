"""Data sets with versions: what was added never changes, and a version names what it has.

A data set is a folder::

    dataset.yaml            name, salt, splits
    rows/<sha256>.jsonl     rows, a file for each addition
    labels/<sha256>.jsonl   labels, a file for each addition
    versions/0001.json      manifests, one a version

A version lists the files it is made of and the rows that were left out. A row's split depends on
its group and the salt alone. A row that another split knows is left out: of `train` where the other
is an older row, so that only train ever shrinks; of any other split only while the row is new.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from ztom.data.assignment import split_of
from ztom.data.leakage import SplitLeak, leaks_between
from ztom.data.rows import Label, LabelHistory, Row
from ztom.errors import ContentChangedError, StimuliError
from ztom.io.files import write_document
from ztom.io.problems import check_json, check_model
from ztom.io.yaml import dump_yaml, read_yaml
from ztom.stimuli.records import Stimulus

TRAIN = "train"
#: Splits whose rows stay, the most precious first; `TRAIN` gives way to all of them.
SHARES = {"holdout": 0.15, "gate": 0.15, "search": 0.2, "dev": 0.1, TRAIN: 0.4}
_NUMBER = re.compile(r"(\d{4,})\.json")

Item = TypeVar("Item", bound=BaseModel)


class DatasetConfig(BaseModel):
    """What a data set is split by.

    Attributes:
        name: Name of the data set.
        salt: Text that decides the splits; another one gives others.
        splits: Share of each split, the most precious first; ``train`` is one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=100)
    salt: str = ""
    splits: dict[str, float] = Field(default_factory=lambda: dict(SHARES))

    @model_validator(mode="after")
    def _whole(self) -> DatasetConfig:
        shares = self.splits.values()
        if TRAIN not in self.splits or min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-9:
            raise ValueError("splits are shares that add up to 1, one of them train")
        return self


class PartFile(BaseModel):
    """A file of rows or labels.

    Attributes:
        sha256: Digest of its bytes, which is its name.
        count: Number of lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    count: int


class LeftOutRow(BaseModel):
    """A row that a version does not have although a file of it has.

    Attributes:
        row: Id of the row.
        kind: Kind of the leak; see `ztom.data.leakage.SplitLeak`.
        known: Id of the row that is like it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: str
    kind: str
    known: str


class DatasetVersion(BaseModel):
    """A version.

    Attributes:
        number: Number of the version, from 1.
        created: Time at which it was made.
        digest: SHA-256 of what it holds: configuration, files, rows left out.
        rows: Files of rows, in the order in which they were added.
        labels: Files of labels, likewise.
        left_out: Rows that were left out.
        splits: Number of rows of each split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    created: AwareDatetime
    digest: str
    rows: tuple[PartFile, ...]
    labels: tuple[PartFile, ...]
    left_out: tuple[LeftOutRow, ...]
    splits: dict[str, int]


class Dataset:
    """A data set in a folder.

    Args:
        folder: Folder of the data set.

    Raises:
        ConfigError: There is no ``dataset.yaml``, or it is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "dataset.yaml"
        self.config = check_model(DatasetConfig, read_yaml(file), wrong=f"{file} is malformed")

    @classmethod
    def create(cls, folder: Path, config: DatasetConfig) -> Dataset:
        """A new data set.

        Raises:
            StimuliError: There is one.
        """
        if (folder / "dataset.yaml").exists():
            raise StimuliError(f"there is a data set in {folder}", fix="Add to it.")
        write_document(folder / "dataset.yaml", dump_yaml(config.model_dump()))
        return cls(folder)

    def add(self, stimuli: Sequence[Stimulus], *, source: str, time: datetime) -> tuple[int, int]:
        """Add rows and their labels for the next version; returns how many of each are new.

        Args:
            stimuli: Stimuli; an empty expected output is no label.
            source: Who says what the labels say.
            time: Time of the labels.
        """
        of_stimuli = [Row.of(stimulus) for stimulus in stimuli]
        rows = {row.id: row for row in of_stimuli}
        known = {row.id for row in self._rows(self._files("rows"))}
        new = [row for key, row in rows.items() if key not in known]
        labels = [
            Label(row=row.id, label=stimulus.expected, source=source, time=time)
            for row, stimulus in zip(of_stimuli, stimuli, strict=True)
            if stimulus.expected
        ]
        self._write("rows", new)
        return len(new), self.add_labels(labels)

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Add labels for the next version; returns how many of them are new.

        Raises:
            StimuliError: A label is of a row that is not there.
        """
        known = {row.id for row in self._rows(self._files("rows"))}
        there = {item.model_dump_json() for item in self._labels(self._files("labels"))}
        new = [item for item in dict.fromkeys(labels) if item.model_dump_json() not in there]
        strangers = [item.row for item in new if item.row not in known]
        if strangers:
            raise StimuliError(
                f"{len(strangers)} labels are of rows that are not in {self.folder}",
                got=", ".join(strangers[:3]),
                fix="Add the rows first.",
            )
        self._write("labels", new)
        return len(new)

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.splits if name != TRAIN)

    def versions(self) -> tuple[DatasetVersion, ...]:
        """All versions, the oldest first.

        Raises:
            StimuliError: A manifest is malformed.
        """
        files = sorted(path for path in (self.folder / "versions").glob("*.json")
                       if _NUMBER.fullmatch(path.name))  # fmt: skip
        return tuple(
            check_json(
                DatasetVersion, file.read_bytes(), wrong=f"{file} is malformed", kind=StimuliError
            )
            for file in files
        )

    def make_version(self, *, created: datetime) -> DatasetVersion:
        """A version of all that was added; the newest one where nothing has changed.

        Args:
            created: Time that it bears.
        """
        before = self.versions()
        old = before[-1] if before else None
        rows, labels = (self._in_order(kind, old) for kind in ("rows", "labels"))
        left_out = self._left_out(rows, old)
        content = [self.config.model_dump_json(), *(f.sha256 for f in (*rows, *labels))]
        content += sorted(item.row for item in left_out)
        digest = hashlib.sha256("\n".join(content).encode()).hexdigest()
        if old is not None and old.digest == digest:
            return old
        gone = {item.row for item in left_out}
        counts = Counter(self.split(row) for row in self._rows(rows) if row.id not in gone)
        version = DatasetVersion(
            number=old.number + 1 if old else 1,
            created=created,
            digest=digest,
            rows=rows,
            labels=labels,
            left_out=left_out,
            splits={name: counts[name] for name in self.config.splits},
        )
        file = self.folder / "versions" / f"{version.number:04d}.json"
        write_document(file, version.model_dump_json(indent=1) + "\n")
        return version

    def split(self, row: Row) -> str:
        """Name of the split that a row is in."""
        return split_of(row.group, salt=self.config.salt, shares=self.config.splits)

    def read(self, version: DatasetVersion) -> dict[str, list[Row]]:
        """Rows of a version by split, in the order in which they were added.

        Raises:
            ContentChangedError: A file has other bytes than the version names.
        """
        gone = {item.row for item in version.left_out}
        splits: dict[str, list[Row]] = {name: [] for name in self.config.splits}
        for row in self._rows(version.rows):
            if row.id not in gone:
                splits[self.split(row)].append(row)
        return splits

    def labels(self, version: DatasetVersion) -> LabelHistory:
        """Labels of a version.

        Raises:
            ContentChangedError: A file has other bytes than the version names.
        """
        return LabelHistory(self._labels(version.labels))

    def stimuli(self, version: DatasetVersion, split: str) -> list[Stimulus]:
        """Labelled rows of a split, with the labels that count.

        Raises:
            StimuliError: There is no such split.
        """
        if split not in self.config.splits:
            raise StimuliError(
                "there is no such split", got=split, expected=", ".join(self.config.splits)
            )
        labels = self.labels(version)
        newest = [(row, labels.newest(row.id)) for row in self.read(version)[split]]
        return [row.stimulus(label.label) for row, label in newest if label is not None]

    def leaks(self, version: DatasetVersion) -> list[SplitLeak]:
        """Rows of a version that a more precious split knows; none, unless files were edited."""
        splits = {name: [row.stimulus() for row in rows]
                  for name, rows in self.read(version).items()}  # fmt: skip
        leaks: list[SplitLeak] = []
        for place, name in enumerate((*self._order, TRAIN)):
            for other in self._order[:place]:
                leaks += leaks_between(splits[other], splits[name])
        return leaks

    def _left_out(
        self, rows: Sequence[PartFile], old: DatasetVersion | None
    ) -> tuple[LeftOutRow, ...]:
        """Rows that leak: kept from before, those of train, and new ones of the other splits."""
        gone = {item.row: item for item in (old.left_out if old else ())}
        had = {row.id for row in self._rows(old.rows)} - gone.keys() if old else set()
        splits: dict[str, list[Stimulus]] = {name: [] for name in self.config.splits}
        for row in self._rows(rows):
            if row.id not in gone:
                splits[self.split(row)].append(row.stimulus())
        for place, name in enumerate((*self._order, TRAIN)):
            # a new row of a precious split gives way to an old one of any split but train
            others = self._order if name != TRAIN else self._order[:place]
            for other in others:
                if other == name:
                    continue
                known, own = splits[other], splits[name]
                if name != TRAIN:
                    own = [row for row in own if row.id not in had]
                    if self._order.index(other) > place:
                        known = [row for row in known if row.id in had]
                for leak in leaks_between(known, own):
                    gone[leak.row] = LeftOutRow(row=leak.row, kind=leak.kind, known=leak.known)
                splits[name] = [row for row in splits[name] if row.id not in gone]
        return tuple(gone[key] for key in sorted(gone))

    def _in_order(self, kind: str, old: DatasetVersion | None) -> tuple[PartFile, ...]:
        """Files of a kind: those of the version before, in its order, and then the new ones."""
        before = getattr(old, kind) if old else ()
        there = self._files(kind)
        return (*before, *(file for file in there if file not in before))

    def _files(self, kind: str) -> tuple[PartFile, ...]:
        """Files of a kind that lie in the folder, by name."""
        files = sorted((self.folder / kind).glob("*.jsonl"))
        return tuple(
            PartFile(sha256=file.stem, count=file.read_bytes().count(b"\n")) for file in files
        )

    def _write(self, kind: str, items: Sequence[BaseModel]) -> None:
        if not items:
            return
        text = "".join(f"{item.model_dump_json(exclude_defaults=True)}\n" for item in items)
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_document(self.folder / kind / f"{digest}.jsonl", text)

    def _rows(self, files: Sequence[PartFile]) -> Iterator[Row]:
        return self._items("rows", files, Row)

    def _labels(self, files: Sequence[PartFile]) -> Iterator[Label]:
        return self._items("labels", files, Label)

    def _items(self, kind: str, files: Sequence[PartFile], model: type[Item]) -> Iterator[Item]:
        for part in files:
            file = self.folder / kind / f"{part.sha256}.jsonl"
            try:
                content = file.read_bytes()
            except OSError as error:
                raise StimuliError(f"{file} cannot be read", reason=error.strerror) from error
            digest = hashlib.sha256(content).hexdigest()
            if digest != part.sha256:
                raise ContentChangedError(
                    f"{file} was changed", got=f"sha256 {digest}", expected=part.sha256
                )
            for line in content.splitlines():
                yield check_json(model, line, wrong=f"{file} is malformed", kind=StimuliError)


def counts(splits: Mapping[str, Sequence[Row]], labels: LabelHistory) -> dict[str, dict[str, int]]:
    """Rows, labelled rows, conflicts and relabelled rows of each split."""
    return {
        name: {
            "rows": len(rows),
            "labelled": sum(labels.newest(row.id) is not None for row in rows),
            "conflicts": sum(labels.is_in_conflict(row.id) for row in rows),
            "relabelled": sum(labels.is_relabelled(row.id) for row in rows),
        }
        for name, rows in splits.items()
    }
