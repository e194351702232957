"""Roots limit what people refer to, never what was written for them: copies, and staged blends.

Engines are given folders. What makes engines runs here up to where one would start, and each folder
is looked into as vLLM's engine does before it starts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from server_helpers import tar_of
from toys import make_adapter_chain, make_plain_chain

from serve_apps.control_plane.questions import BlendAnswers, EngineSpec, StimulusFile
from serve_apps.control_plane.work import ChainSpec
from tune_search.factories import EngineFactory, VariantEngineFactory
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, Member
from ztom.checkpoints.checkpoint import open_checkpoint, open_folder
from ztom.engines import build
from ztom.engines.config import EngineConfig
from ztom.engines.vllm_dtype import vllm_dtype
from ztom.errors import CheckpointError, ReferenceRefusedError
from ztom.settings import Settings
from ztom.testing.fake_engine import FakeEngine
from ztom.variants.write import WriteOptions, stage_variant

VLLM = EngineConfig(name="vllm", dtype="auto")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that engines were given; what starts on them is the fake engine."""
    given: list[Path] = []

    def start(config: EngineConfig, folder: Path, chain: Chain | None) -> FakeEngine:
        assert vllm_dtype(config.dtype, folder) == "float32"
        given.append(folder)
        return FakeEngine(1 if chain is None else chain.transitions)

    monkeypatch.setattr(build, "_build", start)
    return given


@pytest.fixture(params=["folder", "tar", "tar.gz"])
def chain(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ChainConfig:
    """A chain with nothing allowed but its members, and all else of the installation denied."""
    members = make_plain_chain(tmp_path / "roots", members=3)
    references = [*members]
    if request.param != "folder":
        references = [path.with_name(f"{path.name}.{request.param}") for path in members]
        for path, archive in zip(members, references, strict=True):
            archive.write_bytes(tar_of(path, compressed=request.param == "tar.gz"))
    narrow(monkeypatch, references, denied=[tmp_path / "cache", tmp_path / "run"])
    return ChainConfig(checkpoints=tuple(Member(reference=str(path)) for path in references))


def narrow(monkeypatch: pytest.MonkeyPatch, roots: list[Path], *, denied: list[Path]) -> None:
    monkeypatch.setenv("ZTOM_ALLOWED_ROOTS", json.dumps([str(path) for path in roots]))
    monkeypatch.setenv("ZTOM_DENIED_ROOTS", json.dumps([str(path) for path in denied]))


def test_a_search_loads_the_copies_that_were_made(chain: ChainConfig, folders: list[Path]) -> None:
    assert EngineFactory(VLLM, chain, Settings())().factors == (0.0, 0.0)
    assert (folders[0] / "config.json").is_file()


def test_a_search_loads_the_blend_that_it_wrote(
    chain: ChainConfig, folders: list[Path], tmp_path: Path
) -> None:
    opened = load_chain(chain, settings=Settings())
    with stage_variant(opened, (0.5, -0.4), tmp_path / "run" / "variant") as staged:
        VariantEngineFactory(VLLM, staged.folder, chain, Settings())()
        assert folders == [staged.folder]


def test_a_search_loads_the_adapter_that_it_wrote(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, _ = make_adapter_chain(tmp_path / "roots")
    narrow(monkeypatch, members, denied=[tmp_path / "run"])
    chain = ChainConfig(checkpoints=tuple(Member(reference=str(path)) for path in members))
    opened = load_chain(chain, settings=Settings())
    factors = (0.5,) * opened.transitions
    options = WriteOptions(form="adapter")
    with stage_variant(opened, factors, tmp_path / "run" / "variant", options=options) as staged:
        engine = VariantEngineFactory(VLLM, staged.folder, chain, Settings())()
    assert engine.factors == (0.0,)
    assert folders == [members[0]]


@pytest.mark.parametrize("members", [1, 3])
def test_the_server_answers_with_copies(
    chain: ChainConfig, members: int, folders: list[Path], tmp_path: Path
) -> None:
    """A model that is pointed to, and the chain of a project; the data are denied to pointers."""
    references = tuple(member.reference for member in chain.checkpoints)[:members]
    data = tmp_path / "data"
    spec = ChainSpec(references, roots=references, denied=(str(data),), cache=str(data / "cache"))
    stimuli = StimulusFile("s.jsonl", ".jsonl", b'{"prompt": "one"}\n{"prompt": "two"}\n')
    question = BlendAnswers(((0.1,) * (members - 1),), stimuli, generation={})
    reply = question.answer(EngineSpec(spec, VLLM.model_dump()).open())
    assert [len(answers) for answers in reply.given] == [2]
    assert reply.turns == ((("user", "one"),), (("user", "two"),))
    assert len(folders) == 1


def test_a_reference_to_what_was_written_is_still_refused(
    chain: ChainConfig, folders: list[Path]
) -> None:
    EngineFactory(VLLM, chain, Settings())()
    if Settings().cache in folders[0].parents:
        with pytest.raises(ReferenceRefusedError, match="roots"):
            open_checkpoint(str(folders[0]), settings=Settings())
    allowing = Settings().also_allowing(folders[0])
    assert open_checkpoint(str(folders[0]), settings=allowing).kind == "full"
    with pytest.raises(ReferenceRefusedError, match="roots"):
        open_checkpoint(str(folders[0].parent.parent), settings=allowing)


def test_a_folder_is_read_with_the_same_care_as_a_reference(tmp_path: Path) -> None:
    folder = make_plain_chain(tmp_path, members=1)[0]
    assert open_folder(folder, settings=Settings()).digest
    secret = tmp_path / "secret.json"
    (folder / "config.json").rename(secret)
    (folder / "config.json").symlink_to(secret)
    with pytest.raises(ReferenceRefusedError, match="leads out of the folder"):
        open_folder(folder, settings=Settings())
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError):
        vllm_dtype("auto", folder)
