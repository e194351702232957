"""Which model is run: its digest is over its bytes, so a changed byte is another model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from saved_models import edit_tokenizer, open_members
from toy_variant import open_toy_adapters, write_blend
from toys import CHAT_TEMPLATE, make_adapter_chain, make_plain_chain, make_tokenizer

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.engines.config import EngineConfig
from ztom.engines.torch_engine import TorchEngine
from ztom.errors import EvaluationError, VariantError
from ztom.evaluation.runs.cache import AnswerCache
from ztom.evaluation.runs.harness import run_suite
from ztom.evaluation.runs.models import open_model, setup_digest
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.settings import Settings
from ztom.stimuli.records import Message
from ztom.testing.fake_engine import FakeEngine
from ztom.variants.write import WriteOptions, stage_variant

SETTINGS = Settings()


def flip_last_byte(file: Path) -> None:
    """One bit of the last weight, the length and the header as they were."""
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


@pytest.fixture
def suite() -> Suite:
    config = SuiteConfig(name="s", version="1.0.0", layer="task", metric="exact_match", owner="me")
    items = tuple(Item(id=f"{n}", input=f"text {n}", target=f"text {n}") for n in range(5))
    return Suite(config=config, items=items, digest="0" * 64)


def test_one_flipped_byte_of_a_weight_runs_every_item_again(tmp_path: Path, suite: Suite) -> None:
    (folder,) = make_plain_chain(tmp_path, members=1)
    engine = FakeEngine(1)
    with AnswerCache(tmp_path / "answers.db") as cache:
        first = open_model(str(folder), settings=SETTINGS).ref
        assert run_suite(engine, suite, first, cache=cache).seconds > 0
        assert run_suite(engine, suite, first, cache=cache).seconds == 0
        flip_last_byte(folder / "model.safetensors")
        second = open_model(str(folder), settings=SETTINGS).ref
        assert second.name == first.name
        run = run_suite(engine, suite, second, cache=cache)
        assert run.seconds > 0
        keys = cache._database.execute("SELECT count(*) FROM answers").fetchone()
    assert keys == (10,)


def test_tokenizer_and_template_are_part_of_the_digest(tmp_path: Path) -> None:
    (folder,) = make_plain_chain(tmp_path, members=1)
    digests = {open_model(str(folder), settings=SETTINGS).ref.digest}
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    digests.add(open_model(str(folder), settings=SETTINGS).ref.digest)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"b": 0}}}')
    digests.add(open_model(str(folder), settings=SETTINGS).ref.digest)
    assert len(digests) == 3


def test_how_the_engine_is_set_up_counts_as_far_as_answers_depend_on_it() -> None:
    usual = setup_digest(EngineConfig())
    assert setup_digest(EngineConfig(chat_template="never")) != usual
    assert setup_digest(EngineConfig(max_model_len=512)) != usual
    assert setup_digest(EngineConfig(kv_cache_gib=2.0, max_num_seqs=8)) == usual


def test_a_variant_goes_by_its_manifest_and_has_to_be_what_it_says(tmp_path: Path) -> None:
    members = make_plain_chain(tmp_path / "chain")
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in members]})
    chain = load_chain(config, settings=SETTINGS)
    with stage_variant(chain, (0.1, -0.1), tmp_path / "variant") as staged:
        manifest = staged.publish()
    model = open_model(str(tmp_path / "variant"), settings=SETTINGS)
    assert model.ref.name == "variant"
    assert model.ref.digest == manifest.digest
    assert model.folder == tmp_path / "variant"
    shutil.copytree(tmp_path / "variant", tmp_path / "moved")
    assert open_model(str(tmp_path / "moved"), settings=SETTINGS).ref.digest == manifest.digest
    flip_last_byte(tmp_path / "variant" / "model.safetensors")
    with pytest.raises(VariantError, match=r"changed model\.safetensors"):
        open_model(str(tmp_path / "variant"), settings=SETTINGS)


def test_an_adapter_needs_its_base_and_goes_by_both(tmp_path: Path) -> None:
    paths, _ = make_adapter_chain(tmp_path)
    base, first, second = (str(path) for path in paths[:3])
    with pytest.raises(EvaluationError, match="--base"):
        open_model(first, settings=SETTINGS)
    with pytest.raises(EvaluationError, match="whole model"):
        open_model(base, base=base, settings=SETTINGS)
    one = open_model(first, base=base, settings=SETTINGS)
    other = open_model(second, base=base, settings=SETTINGS)
    assert one.chain is not None
    assert one.folder is None
    assert one.ref.digest != other.ref.digest
    flip_last_byte(paths[0] / "model.safetensors")
    assert open_model(first, base=base, settings=SETTINGS).ref.digest != one.ref.digest


def test_an_adapter_variant_finds_its_base_in_its_recipe(tmp_path: Path) -> None:
    paths, _ = make_adapter_chain(tmp_path)
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    chain = load_chain(config, settings=SETTINGS)
    options = WriteOptions(form="adapter")
    with stage_variant(chain, (0.1, 0.0, 0.1), tmp_path / "variant", options=options) as staged:
        manifest = staged.publish()
    model = open_model(str(tmp_path / "variant"), settings=SETTINGS)
    assert model.ref.digest == manifest.digest, "what a server deploys it by"
    assert model.chain is not None
    assert [member.kind for member in model.chain.members] == ["full", "adapter"]
    shutil.copytree(paths[0], tmp_path / "other")
    flip_last_byte(tmp_path / "other" / "model.safetensors")
    with pytest.raises(EvaluationError, match="another base"):
        open_model(str(tmp_path / "variant"), base=str(tmp_path / "other"), settings=SETTINGS)


def test_an_adapter_that_splits_texts_otherwise_is_run_with_its_own_tokenizer(
    tmp_path: Path,
) -> None:
    """It was trained with it, and nothing of the base's embedding is blended."""
    members = open_toy_adapters(tmp_path / "chain", count=1).members
    base, adapter = (Path(member.reference) for member in members)
    make_tokenizer().save_pretrained(adapter)
    edit_tokenizer(adapter, lambda content: content["model"]["merges"].clear())
    (adapter / "chat_template.jinja").write_text(f"own {CHAT_TEMPLATE}")
    chain = open_members(base, adapter, allow_tokenizer_differences=True)
    variant = write_blend(chain, (0.0,), tmp_path / "variant", form="adapter")
    models = [
        open_model(str(variant), settings=SETTINGS),
        open_model(str(adapter), base=str(base), settings=SETTINGS),
    ]
    for model in models:
        engine = model.load(EngineConfig(name="torch", dtype="float32"), settings=SETTINGS)
        assert isinstance(engine, TorchEngine)
        assert engine._encoder is not None
        assert len(engine._encoder.continuation_ids("quick brown")) == len("quick brown")
        assert engine._encoder._rendered([Message("user", "a")]).startswith("own ")
        engine.close()
