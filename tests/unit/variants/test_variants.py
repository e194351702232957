"""Variants: whole or absent, the same bytes again, and nothing but what the manifest says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import make_adapter_chain, make_plain_chain

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.plan import plan_blend
from ztom.errors import ContentChangedError, SignatureError, StorageError, VariantError
from ztom.settings import Settings
from ztom.variants.copies import copy_variant
from ztom.variants.manifest import MANIFEST, build_manifest, verify_manifest
from ztom.variants.recipe import SearchEvidence, read_recipe
from ztom.variants.shards import plan_shards
from ztom.variants.signature import SIGNATURE, read_signature
from ztom.variants.verify import verify_variant
from ztom.variants.write import WriteOptions, stage_variant

FACTORS = (0.3, -0.4)
SHARDED = WriteOptions(max_shard_bytes=600)


def open_chain(paths: list[Path]) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return open_chain(make_plain_chain(tmp_path / "chain"))


def write(chain: Chain, folder: Path, factors=FACTORS, *, options=SHARDED, evidence=None):
    with stage_variant(chain, factors, folder, options=options) as staged:
        return staged.publish(evidence)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_the_same_recipe_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "a" / "v")
    write(chain, tmp_path / "b" / "v")
    assert files(tmp_path / "a" / "v") == files(tmp_path / "b" / "v")
    assert write(chain, tmp_path / "a" / "v") == verify_manifest(tmp_path / "a" / "v")


def test_another_variant_is_never_replaced(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v")
    before = files(tmp_path / "v")
    with pytest.raises(VariantError, match="another variant stands"):
        write(chain, tmp_path / "v", (0.1, 0.1))
    assert files(tmp_path / "v") == before


def test_a_variant_holds_everything_and_verifies(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v")
    names = set(files(tmp_path / "v"))
    assert {"config.json", "tokenizer.json", "recipe.json", "README.md", MANIFEST} <= names
    assert len([name for name in names if name.endswith(".safetensors")]) > 1
    found = verify_variant(tmp_path / "v", share=1.0, settings=Settings())
    assert found.rederived == found.tensors == len(chain.base.tensors)
    recipe = read_recipe(tmp_path / "v")
    assert recipe.factors == FACTORS
    assert recipe.chain_digest == chain.digest


def test_an_unpublished_blend_leaves_nothing(chain: Chain, tmp_path: Path) -> None:
    with stage_variant(chain, FACTORS, tmp_path / "out" / "v") as staged:
        assert (staged.folder / "model.safetensors").exists()
    assert list((tmp_path / "out").iterdir()) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.abuse(91)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip(next(f.glob("*.safetensors"))), "changed model"),
        (lambda f: (f / "config.json").unlink(), r"missing config\.json"),
        (lambda f: (f / "extra.py").write_text(""), r"extra extra\.py"),
        (lambda f: (f / MANIFEST).unlink(), "not a variant"),
        (lambda f: (f / MANIFEST).write_text("{}"), "not a manifest"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "is a link"),
    ],
)
def test_damage_is_found(chain: Chain, tmp_path: Path, damage, message: str) -> None:
    write(chain, tmp_path / "v")
    damage(tmp_path / "v")
    with pytest.raises(VariantError, match=message):
        verify_manifest(tmp_path / "v")


def test_weights_that_do_not_follow_from_the_recipe_are_found(chain, tmp_path) -> None:
    write(chain, tmp_path / "v")
    forge(tmp_path / "v", [0.3, -0.5])
    with pytest.raises(VariantError, match="does not follow from the recipe"):
        verify_variant(tmp_path / "v", share=1.0, settings=Settings())


def forge(variant: Path, factors: list[float]) -> None:
    """Other factors in the recipe, and a manifest that agrees with it; nobody signs that."""
    recipe = json.loads((variant / "recipe.json").read_text())
    (variant / "recipe.json").write_text(json.dumps({**recipe, "factors": factors}))
    (variant / MANIFEST).unlink()
    with pytest.raises(SignatureError, match="does not fit"):
        read_signature(variant, build_manifest(variant).digest)
    (variant / SIGNATURE).unlink()
    (variant / MANIFEST).write_bytes(build_manifest(variant).to_bytes())


def test_an_adapter_is_derived_again_too(tmp_path: Path) -> None:
    paths, _ = make_adapter_chain(tmp_path)
    folder = tmp_path / "v"
    write(open_chain(paths), folder, (0.2, 0.3, -0.5), options=WriteOptions(form="adapter"))
    found = verify_variant(folder, share=1.0, settings=Settings())
    assert found.rederived == found.tensors == len(load_file(folder / "adapter_model.safetensors"))
    forge(folder, [0.2, 0.3, -0.4])
    with pytest.raises(VariantError, match="does not follow from the recipe"):
        verify_variant(folder, share=1.0, settings=Settings())


def test_counters_are_written_as_they_are(tmp_path: Path) -> None:
    paths = make_plain_chain(tmp_path / "chain")
    count = torch.tensor([2**24 + 1, -(2**53) - 1])  # neither is a float32
    for i, path in enumerate(paths):
        weights = load_file(path / "model.safetensors")
        save_file({**weights, "bn.num_batches_tracked": count + i}, path / "model.safetensors")
    write(open_chain(paths), tmp_path / "v", options=WriteOptions())
    written = load_file(tmp_path / "v" / "model.safetensors")
    assert torch.equal(written["bn.num_batches_tracked"], count + 2)


@pytest.mark.abuse(39)
def test_a_checkpoint_that_changed_stops_the_writing(tmp_path: Path) -> None:
    paths = make_plain_chain(tmp_path / "chain")
    chain = open_chain(paths)
    assert chain.digest
    time.sleep(0.01)
    flip(paths[1] / "model.safetensors")
    with pytest.raises((ContentChangedError, StorageError)):
        write(chain, tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_adapters_are_written_as_one_adapter(tmp_path: Path) -> None:
    paths, _ = make_adapter_chain(tmp_path)
    chain = open_chain(paths)
    write(chain, tmp_path / "v", (0.2, 0.3, -0.5), options=WriteOptions(form="adapter"))
    assert "adapter_model.safetensors" in files(tmp_path / "v")
    dense = open_chain([paths[0], tmp_path / "v"])  # it opens as an adapter over the base
    assert dense.is_adapter_chain
    write(chain, tmp_path / "d", (0.2, 0.3, -0.5))
    assert "config.json" in files(tmp_path / "d")
    assert "adapter_config.json" not in files(tmp_path / "d")


def test_the_card_and_the_recipe_carry_the_evidence(chain: Chain, tmp_path: Path) -> None:
    evidence = SearchEvidence(
        study="s", config_digest="c", data_digests={}, error=[{"function": "rouge_l"}], seed=1,
        sampler="gp", trials_digest="t", number_of_inferences=55, search_errors=(0.5, 0.4),
        holdout_errors=(0.6, 0.5), insisted=True, versions={},
        verdict={"outcome": "inconclusive", "reasons": ["too few"], "improvement":
                 {"estimate": 0.1, "low": -0.1, "high": 0.2, "confidence": 0.95, "groups": 9}},
    )  # fmt: skip
    write(chain, tmp_path / "v", evidence=evidence)
    card = (tmp_path / "v" / "README.md").read_text()
    assert "**inconclusive**" in card
    assert "Released on insistence" in card
    assert read_recipe(tmp_path / "v").evidence == evidence
    assert "best_existing" not in (tmp_path / "v" / "recipe.json").read_text()  # bytes as before
    best = {
        "name": "00-base",
        "search_error": 2.8,
        "holdout_error": 2.809,
        "outcome": "worse",
        "reason": "higher by 0.2",
        "advice": "checkpoint 00-base alone is better: use it",
    }
    fair = evidence.model_copy(update={"best_existing": best})
    write(chain, tmp_path / "w", evidence=fair)
    card = (tmp_path / "w" / "README.md").read_text()
    body = card.split("---\n")[2].lstrip()
    assert body.startswith("**checkpoint 00-base alone is better: use it**\n")
    assert "with 2.8 there and 2.809 on the holdout" in card
    assert read_recipe(tmp_path / "w").evidence == fair


def test_object_stores_get_the_manifest_last(chain: Chain, tmp_path: Path, monkeypatch) -> None:
    write(chain, tmp_path / "v")
    address = f"memory://variants/{tmp_path.name}"
    store = fsspec.filesystem("memory")
    written: list[str] = []
    put = type(store).put_file

    def failing(self, source, target, **options):
        assert not store.exists(f"{address}/{MANIFEST}")
        written.append(target)
        if len(written) == 3:
            raise OSError("the store went away")
        return put(self, source, target, **options)

    monkeypatch.setattr(type(store), "put_file", failing)
    with pytest.raises(StorageError):
        copy_variant(tmp_path / "v", address, retries=0)
    assert not store.exists(f"{address}/{MANIFEST}")  # no manifest, no variant
    copy_variant(tmp_path / "v", address)
    assert not any(target.endswith(MANIFEST) for target in written)  # it comes after them all
    copied = {Path(p).name: store.cat_file(p) for p in store.ls(address, detail=False)}
    assert copied == files(tmp_path / "v")
    copy_variant(tmp_path / "v", address)  # once more is harmless
    write(chain, tmp_path / "other", (0.1, 0.1))
    with pytest.raises(VariantError, match="another variant"):
        copy_variant(tmp_path / "other", address)


def test_shards_respect_their_size(chain: Chain) -> None:
    plan = plan_blend(chain, FACTORS)
    shards = plan_shards(plan.tensors, 600)
    assert [t.name for shard in shards for t in shard] == [t.name for t in plan.tensors]
    assert all(len(s) == 1 or sum(t.nbytes for t in s) <= 600 for s in shards)


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.io.signatures import signing_key
from ztom.settings import Settings
from ztom.variants.write import WriteOptions, stage_variant

folder = Path(sys.argv[1])
paths = [str(p) for p in sorted((folder / "chain").iterdir())]
chain = load_chain(ChainConfig(checkpoints=paths), settings=Settings())
assert chain.digest
signing_key(Settings().own_key)  # it is made once
calls, stop = 0, 0

def count(event, args):
    # every operation on the file system is a place where the process can die
    global calls
    if event in ("open", "os.rename", "os.mkdir", "os.remove") and str(folder) in str(args[0]):
        calls += 1
        if calls == stop:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)

def write():
    options = WriteOptions(max_shard_bytes=600)
    with stage_variant(chain, (0.3, -0.4), folder / "out" / "v", options=options) as staged:
        staged.publish()

def files():
    return {p.name: p.read_bytes() for p in sorted((folder / "out" / "v").iterdir())}

write()
steps, reference = calls, files()
assert steps > 20
survived = 0
for last in range(1, steps + 1):
    shutil.rmtree(folder / "out")
    child = os.fork()
    if child == 0:
        calls, stop = 0, last
        write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    if (folder / "out" / "v").exists():
        survived += 1
        assert files() == reference, last
    else:
        write()  # what was left is no obstacle
        assert files() == reference, last
print(steps, survived)
"""


@pytest.mark.abuse(58, 60)
def test_killed_at_any_write_step_it_is_whole_or_absent(tmp_path: Path) -> None:
    make_plain_chain(tmp_path / "chain")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # forked children have no thread pool
    )
    assert done.returncode == 0, done.stderr
    steps, survived = map(int, done.stdout.split())
    assert 0 <= survived < steps


@pytest.mark.abuse(59)
def test_a_full_disk_publishes_nothing(chain: Chain, tmp_path: Path, monkeypatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ztom.variants.shards.save_file", full)
    with pytest.raises(StorageError, match=r"[Ff]ree some space"):
        write(chain, tmp_path / "out" / "v")
    assert list((tmp_path / "out").iterdir()) == []


def test_alpha_zero_writes_the_latest_checkpoint(chain: Chain, tmp_path: Path) -> None:
    write(chain, tmp_path / "v", (0.0, 0.0), options=WriteOptions())
    latest = load_file(Path(chain.reference.reference) / "model.safetensors")
    written = load_file(tmp_path / "v" / "model.safetensors")
    assert all(bool((latest[name] == written[name]).all()) for name in latest)


def test_the_bill_of_materials_is_cyclonedx() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from ztom.ledger import AuditEntry, AuditEvent, VariantRecord
    from ztom.variants.bom import bill_of_materials

    evidence = {
        "data_digests": {"search": "s" * 64, "holdout": "h" * 64},
        "error": [{"function": "cross_entropy", "weight": 1.0}],
        "search_errors": [2.0, 1.5],
        "holdout_errors": [2.1, 1.6],
        "verdict": {"outcome": "improved"},
        "insisted": False,
    }
    members = [{"reference": f"models/{i}", "sha256": str(i) * 64} for i in range(3)]
    recipe = {
        "members": members,
        "factors": [0.1, -0.2],
        "topology": "sequence",
        "dtype": "float32",
        "evidence": evidence,
    }
    event = AuditEvent(actor="ada", action="variant.release", subject="variant:d", after="d" * 64)
    entry = AuditEntry(7, "2030-01-01T00:00:00+00:00", event, "0" * 64, "1" * 64)
    for content in (recipe, {**recipe, "evidence": None}):
        record = VariantRecord("d" * 64, "runs/variant", 1, content, "now")
        document = bill_of_materials(record, [entry])
        problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
        assert problem is None, problem
        assert document == bill_of_materials(record, [entry])
    text = json.dumps(bill_of_materials(VariantRecord("d" * 64, "a", 1, recipe, "now"), [entry]))
    assert all(part in text for part in ("0" * 64, "h" * 64, "improved", "ada", "1.6"))
