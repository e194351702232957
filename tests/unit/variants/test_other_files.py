"""What else lies in a checkpoint's folder: kept with a variant, or named with a reason. Row 114."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save
from toys import make_adapter_chain, make_plain_chain

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, read_chain_file
from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.kept_paths import paths_to_send
from ztom.checkpoints.other_files import find_other_files
from ztom.checkpoints.outgoing import pieces_of, tar_chunks
from ztom.checkpoints.storage import open_source
from ztom.cli.actions.chains import blend_command
from ztom.client.transfer import unpack
from ztom.errors import ArchiveError, CheckpointError, VariantError
from ztom.ledger.ledger import Ledger
from ztom.settings import Settings
from ztom.variants.copies import copy_variant
from ztom.variants.manifest import MANIFEST, build_manifest
from ztom.variants.recipe import RECIPE, read_recipe
from ztom.variants.signature import SIGNATURE
from ztom.variants.verify import verify_variant
from ztom.variants.write import WriteOptions, stage_variant

#: As sentence-transformers saves a model.
KEPT = {
    "modules.json": b'[{"idx": 1, "path": "1_Pooling", "type": "s.Pooling"}]',
    "config_sentence_transformers.json": b"{}\n",
    "sentence_bert_config.json": b'{"max_seq_length": 512}',
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "2_Dense/config.json": b"not json",
    "2_Dense/model.safetensors": save({"linear.weight": torch.ones(2, 2)}),
    "LICENSE": b"\x00\xff any bytes\r\n",
    "docs/deep/_notes (1).md": b"notes",
    "docs/manifest.json": b"{}",
}
LEFT_OUT = {
    "README.md": "written anew",
    MANIFEST: "written anew",
    RECIPE: "written anew",
    "optimizer.pt": "a trainer's state",
    "scheduler.pt": "a trainer's state",
    "trainer_state.json": "a trainer's state",
    "training_args.bin": "a trainer's state",
    "rng_state_0.pth": "a trainer's state",
    "latest": "a trainer's state",
    "global_step20/": "a trainer's state",
    "checkpoint-500/": "a trainer's state",
    "runs/events.out.tfevents.17.host": "a trainer's state",
    "pytorch_model.bin": "a pickle",
    "2_Dense/pytorch_model.bin": "a pickle",
    "scaler.pkl": "a trainer's state",
    "x.ckpt": "a pickle",
    "2_Dense/custom.py": "code",
    "consolidated.safetensors": "weights besides the checkpoint's",
    "pytorch_model.bin.index.json": "weights besides the checkpoint's",
    "onnx/model.onnx": "weights in another format, which are not the blend's",
    ".gitattributes": "hidden",
    ".git/": "hidden",
    "docs/.secret": "hidden",
    "odd\nname": "a name that is not plain",
    "custom/config.json": "asks for code of its own",
}
INSIDE = {"global_step20/": "a/b.bin", "checkpoint-500/": "model.safetensors", ".git/": "HEAD"}


def fill(folder: Path) -> None:
    for path, content in KEPT.items():
        put(folder / path, content)
    for path in LEFT_OUT:
        put(folder / (path + INSIDE.get(path, "")), b"\x80\x04")
    put(folder / "custom" / "config.json", b'{"auto_map": {"AutoModel": "x.y"}}')


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def open_chain(references: list[str]) -> Chain:
    return load_chain(ChainConfig.model_validate({"checkpoints": references}), settings=Settings())


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("ZTOM_CACHE_DIR", str(tmp_path / "cache"))
    paths = make_plain_chain(tmp_path / "chain")
    for path in paths:
        put(path / "modules.json", b"of another member")
    fill(paths[-1])
    return paths


def packed(folder: Path, name: str, mode: str) -> str:
    path = folder.parent / name
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname="m")
    return str(path)


def stored(folder: Path) -> str:
    address = "memory://other-files/model"
    fsspec.filesystem("memory").put(f"{folder}/", address, recursive=True)
    return address


REFERENCES = {
    "folder": str,
    "tar": lambda folder: packed(folder, "m.tar", "w"),
    "tar.gz": lambda folder: packed(folder, "m.tar.gz", "w:gz"),
    "store": stored,
}


@pytest.mark.abuse(114)
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_variant_keeps_every_file_of_the_latest(
    kind: str, paths: list[Path], tmp_path: Path
) -> None:
    if kind in ("tar", "tar.gz"):
        (paths[-1] / "odd\nname").unlink()  # a tar with it is refused as a whole
    chain = open_chain([*map(str, paths[:-1]), REFERENCES[kind](paths[-1])])
    with stage_variant(chain, [0.0] * chain.transitions, tmp_path / "v") as staged:
        manifest = staged.publish()
    for path, content in KEPT.items():
        assert (tmp_path / "v" / path).read_bytes() == content, path
        assert path in manifest.files
    recipe = read_recipe(tmp_path / "v")
    assert recipe.kept == {path: manifest.files[path].sha256 for path in KEPT}
    expected = {p: why for p, why in LEFT_OUT.items() if (paths[-1] / p).exists()}
    if kind == "store":  # its folders are only names, so what is below is what is there
        assert recipe.left_out.items() >= expected.items()
    else:
        assert {path.rstrip("/") for path in recipe.left_out} >= {p.rstrip("/") for p in expected}
    if kind == "folder":
        assert recipe.left_out == expected
    own = {"config.json", "tokenizer.json", "model.safetensors", "README.md", RECIPE}
    assert manifest.files.keys() == {*KEPT, *own}
    last = load_file(paths[-1] / "model.safetensors")
    written = load_file(tmp_path / "v" / "model.safetensors")
    assert written.keys() == last.keys()
    assert all(torch.equal(written[name], last[name]) for name in last)
    assert verify_variant(tmp_path / "v", share=1, settings=Settings()).manifest == manifest
    card = (tmp_path / "v" / "README.md").read_text()
    assert "`optimizer.pt` (a trainer's state)" in card
    copy_variant(tmp_path / "v", f"memory://copies/{kind}")
    copied = fsspec.filesystem("memory").cat_file(f"/copies/{kind}/1_Pooling/config.json")
    assert copied == KEPT["1_Pooling/config.json"]


def test_a_kept_file_that_changed_is_found(paths: list[Path], tmp_path: Path) -> None:
    chain = open_chain([str(path) for path in paths])
    with stage_variant(chain, [0.1] * chain.transitions, tmp_path / "v") as staged:
        staged.publish()
    (tmp_path / "v" / "docs" / "manifest.json").write_text("other")
    with pytest.raises(VariantError, match=r"changed docs/manifest\.json"):
        verify_variant(tmp_path / "v", settings=Settings())
    # a manifest that was made to fit does not help: the recipe says what was kept
    (tmp_path / "v" / SIGNATURE).unlink(missing_ok=True)
    (tmp_path / "v" / MANIFEST).write_bytes(build_manifest(tmp_path / "v").to_bytes())
    with pytest.raises(VariantError, match=r"docs/manifest\.json .*not the one that the recipe"):
        verify_variant(tmp_path / "v", settings=Settings())


def test_an_adapter_keeps_its_own_and_the_bases_where_it_is_merged(tmp_path: Path) -> None:
    paths, _ = make_adapter_chain(tmp_path / "chain")
    put(paths[0] / "modules.json", b"base")
    put(paths[0] / "LICENSE", b"base")
    put(paths[-1] / "LICENSE", b"adapter")
    put(paths[-1] / "optimizer.pt", b"")
    chain = open_chain([str(path) for path in paths])
    for form, kept in (("dense", {"LICENSE", "modules.json"}), ("adapter", {"LICENSE"})):
        options = WriteOptions(form=form)  # type: ignore[arg-type]
        with stage_variant(chain, (0.1, 0, 0), tmp_path / form, options=options) as staged:
            staged.publish()
        recipe = read_recipe(tmp_path / form)
        assert (set(recipe.kept), set(recipe.left_out)) == (kept, {"optimizer.pt"})
        assert (tmp_path / form / "LICENSE").read_bytes() == b"adapter"


@pytest.mark.abuse(114)
def test_blend_says_what_it_keeps_and_what_not(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(json.dumps({"checkpoints": [str(path) for path in paths]}))
    factors = [0.1] * (len(paths) - 1)
    blend_command(
        read_chain_file(file),
        factors,
        tmp_path / "v",
        dtype="auto",
        form="dense",
        max_shard_bytes=2**30,
        ledger_address=str(tmp_path / "ledger.db"),
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "kept of the latest checkpoint: 1_Pooling/config.json, " in said
    assert said.count("optimizer.pt (a trainer's state)") == 1
    with Ledger.open(str(tmp_path / "ledger.db")) as ledger:
        assert ledger.variants.all()[0].recipe["kept"].keys() == KEPT.keys()


def test_links_are_not_followed_out_of_the_folder(paths: list[Path], tmp_path: Path) -> None:
    put(tmp_path / "secret" / "key", b"secret")
    folder = paths[-1]
    (folder / "docs" / "linked").symlink_to(tmp_path / "secret")
    (folder / "docs" / "key").symlink_to(tmp_path / "secret" / "key")
    (folder / "docs" / "same").symlink_to("manifest.json")
    os.mkfifo(folder / "docs" / "pipe")
    found = find_other_files(open_checkpoint(str(folder), settings=Settings()), max_bytes=2**20)
    assert found.left_out["docs/linked/"] == "a link to a folder"
    assert found.left_out["docs/key"] == "a link that leads out of the folder"
    assert "docs/same" in found.kept
    source = open_source(str(folder), settings=Settings())
    (folder / "docs" / "gone").symlink_to("nothing")
    assert "docs/gone" not in source.paths()
    sent = paths_to_send(source)
    assert "docs/same" in sent
    assert not {"docs/linked/", "docs/key"} & set(sent)
    for path in ("docs/linked/key", "docs/key", "docs/../docs/same"):
        with pytest.raises(CheckpointError):
            source.read(path)


def test_what_is_kept_is_bounded(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(str(paths[-1]), settings=Settings())
    size = sum(map(len, KEPT.values()))
    assert find_other_files(checkpoint, max_bytes=size + 6).kept
    with pytest.raises(CheckpointError, match="too much besides the model"):
        find_other_files(checkpoint, max_bytes=size - 1)
    monkeypatch.setenv("ZTOM_MAX_ARCHIVE_MEMBERS", "20")
    for reference in (str(paths[-1]), stored(paths[-1])):
        few = open_checkpoint(reference, settings=Settings())
        with pytest.raises(CheckpointError, match="too many files"):
            find_other_files(few, max_bytes=2**30)
    monkeypatch.setenv("ZTOM_MAX_KEPT_BYTES", "3")
    monkeypatch.delenv("ZTOM_MAX_ARCHIVE_MEMBERS")
    chain = open_chain([str(path) for path in paths])
    with (
        pytest.raises(CheckpointError, match="ZTOM_MAX_KEPT_BYTES"),
        stage_variant(chain, [0.1] * chain.transitions, paths[0].parent / "v"),
    ):
        pass


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_file_that_is_also_a_folder_is_refused(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTOM_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / f"a.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        for name in ("config.json", "a", "a/b"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"{}"))
    with pytest.raises(ArchiveError, match="a file a and a folder a"):
        open_source(str(path), settings=Settings())
    assert not list((tmp_path / "cache").glob("archives/*"))


def test_an_archive_unpacked_before_subfolders_were_is_unpacked_again(
    paths: list[Path], tmp_path: Path
) -> None:
    (paths[-1] / "odd\nname").unlink()
    reference = packed(paths[-1], "m.tar.gz", "w:gz")
    folder = open_source(reference, settings=Settings()).local_folder()
    assert folder is not None
    (folder / ".passed-over.json").unlink()
    (folder / "1_Pooling" / "config.json").unlink()
    again = open_source(reference, settings=Settings())
    assert again.read("1_Pooling/config.json") == KEPT["1_Pooling/config.json"]
    assert ".gitattributes" in again.paths()
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_sent_is_what_is_kept(paths: list[Path], tmp_path: Path) -> None:
    source = open_source(str(paths[-1]), settings=Settings())
    sent = paths_to_send(source)
    assert set(KEPT) <= set(sent)
    assert not [path for path in sent if "checkpoint-500" in path or path.endswith(".py")]
    archive = tmp_path / "sent.tar"
    archive.write_bytes(b"".join(tar_chunks(pieces_of(source, sent))))
    unpack(archive, tmp_path / "back")
    for path, content in KEPT.items():
        assert (tmp_path / "back" / path).read_bytes() == content
