import pytest

from ztom.demo.folder import (
    DemoManifest,
    digests,
    intact,
    publish,
    refuse_foreign,
    staging,
    write_manifest,
)
from ztom.errors import ConfigError


def _fill(folder, text="weights"):
    (folder / "00-base").mkdir(parents=True)
    (folder / "00-base" / "model.safetensors").write_text(text)
    manifest = DemoManifest(
        fingerprint="f", parameters=1, train_seconds=1.0, stages=(), files=digests(folder)
    )
    write_manifest(folder, manifest)
    return manifest


def test_a_whole_chain_is_found_by_its_fingerprint(tmp_path):
    manifest = _fill(tmp_path / "chain")
    assert intact(tmp_path / "chain", "f") == manifest
    assert intact(tmp_path / "chain", "another") is None
    assert intact(tmp_path / "absent", "f") is None


@pytest.mark.parametrize("damage", ["changed", "removed", "manifest"])
def test_a_damaged_chain_is_not_found(tmp_path, damage):
    _fill(tmp_path / "chain")
    weights = tmp_path / "chain" / "00-base" / "model.safetensors"
    if damage == "changed":
        weights.write_text("Weights")
    elif damage == "removed":
        weights.unlink()
    else:
        (tmp_path / "chain" / "manifest.json").write_text("{")
    assert intact(tmp_path / "chain", "f") is None


def test_notes_beside_a_chain_do_not_spoil_it_and_are_never_deleted(tmp_path):
    manifest = _fill(tmp_path / "chain")
    (tmp_path / "chain" / "notes.txt").write_text("mine")
    assert intact(tmp_path / "chain", "f") == manifest
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        refuse_foreign(tmp_path / "chain")


def test_somebody_elses_folder_or_file_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        refuse_foreign(tmp_path)
    with pytest.raises(ConfigError, match="a file"):
        refuse_foreign(tmp_path / "thesis.tex")


def test_an_empty_or_absent_folder_may_be_filled(tmp_path):
    refuse_foreign(tmp_path)
    refuse_foreign(tmp_path / "absent")


def test_publishing_replaces_an_old_chain_and_leaves_nothing_behind(tmp_path):
    chain = tmp_path / "chain"
    _fill(chain, "old")
    with staging(chain) as staged:
        _fill(staged, "new")
        publish(staged, chain)
    assert (chain / "00-base" / "model.safetensors").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain"]


def test_what_a_killed_run_left_is_swept(tmp_path):
    left_over = tmp_path / ".chain.partial-abc" / "chain" / "00-base"
    left_over.mkdir(parents=True)
    with staging(tmp_path / "chain") as staged:
        assert not left_over.exists()
        assert staged.is_dir()
    assert list(tmp_path.iterdir()) == []


def _interrupted(chain):
    with staging(chain) as staged:
        _fill(staged)
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "chain")
    assert list(tmp_path.iterdir()) == []
