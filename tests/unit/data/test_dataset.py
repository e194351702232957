"""Versions of a data set: stable splits, a holdout that stays, no leaks, all labels."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest

from ztom.data.assignment import split_of
from ztom.data.dataset import SHARES, Dataset, DatasetConfig, counts
from ztom.data.leakage import leaks_between
from ztom.data.rows import Label
from ztom.errors import ConfigError, ContentChangedError, StimuliError
from ztom.stimuli.records import Message, Stimulus

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re", "so") for b in ("ra", "ti", "vo", "ze")]


def _stimuli(count: int, *, seed: int = 0, words: int = 12) -> list[Stimulus]:
    rng = random.Random(seed)
    return [
        Stimulus(
            f"{seed} {i}", " ".join(rng.choices(_WORDS, k=words)), f"class {i % 3}", f"{seed}{i}"
        )
        for i in range(count)
    ]


@pytest.fixture
def dataset(tmp_path):
    return Dataset.create(tmp_path / "support", DatasetConfig(name="support"))


def test_a_group_is_in_one_split_whatever_else_there_is():
    shares = {"holdout": 0.2, "train": 0.8}
    splits = [split_of(f"customer {i}", salt="a", shares=shares) for i in range(5000)]
    assert splits.count("holdout") / 5000 == pytest.approx(0.2, abs=0.02)
    # pinned: sha256("a" + "customer 7") mod 10000 is the published rule
    assert split_of("customer 7", salt="a", shares=shares) == splits[7]
    other = [split_of(f"customer {i}", salt="b", shares=shares) for i in range(5000)]
    assert other != splits


def test_splits_stay_as_data_grows_and_only_train_shrinks(dataset):
    dataset.add(_stimuli(300), source="export", time=_NOW)
    first = dataset.make_version(created=_NOW)
    before = dataset.read(first)
    dataset.add(_stimuli(300, seed=1), source="export", time=_NOW)
    second = dataset.make_version(created=_NOW + timedelta(days=1))
    after = dataset.read(second)
    for name in SHARES:
        kept = [row for row in before[name] if row in after[name]]
        if name != "train":
            assert kept == before[name]
            assert after[name][: len(kept)] == kept
    assert second.number == 2
    assert sum(second.splits.values()) + len(second.left_out) == 600


def test_a_version_is_what_it_holds(dataset, tmp_path):
    dataset.add(_stimuli(50), source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    assert dataset.make_version(created=_NOW + timedelta(days=9)) == version
    again = Dataset.create(tmp_path / "again", dataset.config)
    again.add(_stimuli(50), source="export", time=_NOW)
    assert again.make_version(created=_NOW).digest == version.digest
    assert Dataset(dataset.folder).versions() == (version,)


def test_the_same_rows_added_twice_are_there_once(dataset):
    assert dataset.add(_stimuli(50), source="export", time=_NOW) == (50, 50)
    assert dataset.add(_stimuli(60), source="export", time=_NOW) == (10, 10)
    assert sum(dataset.make_version(created=_NOW).splits.values()) == 60


def _in_split(dataset: Dataset, split: str, text: str, number: int = 0) -> Stimulus:
    """A stimulus whose group is in a split."""
    while True:
        number += 1
        group = f"{split} {number}"
        config = dataset.config
        if split_of(group, salt=config.salt, shares=config.splits) == split:
            return Stimulus(group, text, "yes", group)


_LONG = " ".join(_WORDS[:20])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (_LONG.upper(), "prompt"),
        (_LONG.replace("kati", "other"), "near-duplicate"),
        (f"please read this and answer: {' '.join(_WORDS[2:16])} what does it say of the fee",
         "passage"),
    ],
)  # fmt: skip
def test_a_leak_into_train_is_left_out_of_train(dataset, text, kind):
    rows = [_in_split(dataset, "holdout", _LONG), _in_split(dataset, "train", text)]
    dataset.add(rows, source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    assert (version.splits["holdout"], version.splits["train"]) == (1, 0)
    assert [item.kind for item in version.left_out] == [kind]
    assert dataset.leaks(version) == []


def test_a_holdout_is_never_edited_for_a_newer_row_of_a_more_precious_split(dataset):
    search = _in_split(dataset, "search", _LONG)
    dataset.add([search], source="export", time=_NOW)
    dataset.make_version(created=_NOW)
    dataset.add([_in_split(dataset, "holdout", _LONG)], source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    assert version.splits["search"] == 1  # what was there stays
    assert version.splits["holdout"] == 0
    assert dataset.leaks(version) == []


def test_old_rows_of_train_give_way_to_new_rows_of_the_holdout(dataset):
    dataset.add([_in_split(dataset, "train", _LONG)], source="export", time=_NOW)
    assert dataset.make_version(created=_NOW).splits["train"] == 1
    dataset.add([_in_split(dataset, "holdout", _LONG)], source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    assert (version.splits["train"], version.splits["holdout"]) == (0, 1)


def test_labels_are_all_kept_and_the_newest_counts(dataset):
    stimulus = _in_split(dataset, "search", _LONG)
    dataset.add([stimulus], source="ann", time=_NOW)
    first = dataset.make_version(created=_NOW)
    (row,) = dataset.read(first)["search"]
    later = _NOW + timedelta(hours=1)
    assert dataset.add_labels([Label(row=row.id, label="no", source="ben", time=later)]) == 1
    second = dataset.make_version(created=later)
    assert second.digest != first.digest
    labels = dataset.labels(second)
    assert [(item.source, item.label) for item in labels.of(row.id)] == [
        ("ann", "yes"),
        ("ben", "no"),
    ]
    assert labels.is_in_conflict(row.id)
    assert not labels.is_relabelled(row.id)
    (labelled,) = dataset.stimuli(second, "search")
    assert (labelled.expected, labelled.prompt) == ("no", _LONG)
    dataset.add_labels(
        [Label(row=row.id, label="no", source="ann", time=later + timedelta(hours=1))]
    )
    third = dataset.labels(dataset.make_version(created=later))
    assert third.is_relabelled(row.id)
    assert not third.is_in_conflict(row.id)
    # the version before is what it was
    assert not dataset.labels(first).is_in_conflict(row.id)
    assert counts(dataset.read(second), labels)["search"] == {
        "rows": 1,
        "labelled": 1,
        "conflicts": 1,
        "relabelled": 0,
    }


def test_chats_and_numbers_are_rows_too(dataset):
    chat = (Message("system", "be kind"), Message("user", "hello"))
    stimuli = [Stimulus("a", chat, "hi", "a"), Stimulus("b", (0.5, 1.0), "0", "b")]
    dataset.add(stimuli, source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    prompts = [row.stimulus().prompt for rows in dataset.read(version).values() for row in rows]
    assert sorted(prompts, key=str) == sorted([chat, (0.5, 1.0)], key=str)


def test_changed_files_are_noticed(dataset):
    dataset.add(_stimuli(5), source="export", time=_NOW)
    version = dataset.make_version(created=_NOW)
    (file,) = (dataset.folder / "rows").iterdir()
    file.write_text(file.read_text().replace("ka", "ko", 1))
    with pytest.raises(ContentChangedError, match="was changed"):
        dataset.read(version)


def test_labels_of_unknown_rows_and_unknown_splits_are_refused(dataset):
    dataset.add(_stimuli(5), source="export", time=_NOW)
    with pytest.raises(StimuliError, match="of rows that are not in"):
        dataset.add_labels([Label(row="nothing", label="a", source="b", time=_NOW)])
    with pytest.raises(StimuliError, match="no such split"):
        dataset.stimuli(dataset.make_version(created=_NOW), "validation")
    with pytest.raises(StimuliError, match="there is a data set"):
        Dataset.create(dataset.folder, dataset.config)


@pytest.mark.parametrize("splits", [{"train": 0.5}, {"holdout": 1.0}, {"train": 1.5, "a": -0.5}])
def test_splits_that_cannot_be_are_refused(tmp_path, splits):
    (tmp_path / "dataset.yaml").write_text(json.dumps({"name": "x", "splits": splits}))
    with pytest.raises(ConfigError, match="shares that add up to 1"):
        Dataset(tmp_path)


def test_nearly_all_planted_near_duplicates_are_found():
    rng = random.Random(4)
    known = _stimuli(300, words=30)
    planted = []
    for index, stimulus in enumerate(known):
        parts = str(stimulus.prompt).split()
        parts[rng.randrange(len(parts))] = "changed"
        planted.append(Stimulus(f"p{index}", " ".join(parts).title(), "", f"other {index}"))
    leaks = leaks_between(known, [*planted, *_stimuli(300, seed=9, words=30)])
    hits = {leak.row for leak in leaks}
    assert len(hits & {row.id for row in planted}) >= 297
    assert not hits - {row.id for row in planted}


def test_an_instruction_in_all_rows_is_no_leak():
    instruction = " ".join(_WORDS[:15])
    rng = random.Random(1)

    def asked(prefix: str) -> list[Stimulus]:
        return [
            Stimulus(
                f"{prefix}{i}",
                f"{instruction} {' '.join(rng.choices(_WORDS, k=40))}",
                "",
                f"{prefix}{i}",
            )
            for i in range(600)
        ]

    assert leaks_between(asked("a"), asked("b")) == []
