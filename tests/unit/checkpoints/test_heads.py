"""Output heads that are tied in one member of a chain and not in another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_checkpoints import CONFIG, llama_tensors, write_checkpoint

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, Member
from ztom.errors import AdapterUnsupportedError, IncompatibleChainError
from ztom.settings import Settings
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
#: How a member has its head: what its config says of it, and what is stored.
KINDS = {
    "own": (False, "own"),
    "own-unsaid": (None, "own"),
    "tied": (True, None),
    "tied-unsaid": (None, None),
    "tied-stored": (True, "copy"),
    "copied": (False, "copy"),
    "copied-unsaid": (None, "copy"),
    "tied-but-other": (True, "own"),
}
TIED = ("tied", "tied-unsaid", "tied-stored")
OWN = ("own", "own-unsaid")
COPIED = ("copied", "copied-unsaid")
Tensors = dict[str, torch.Tensor]


def member(folder: Path, kind: str, seed: int) -> Tensors:
    said, stored = KINDS[kind]
    tensors = llama_tensors(seed)
    own = tensors.pop(HEAD)
    if stored is not None:
        tensors[HEAD] = own if stored == "own" else tensors[EMBEDDING].clone()
    config = {k: v for k, v in CONFIG.items() if k != "tie_word_embeddings"}
    write_checkpoint(
        folder, tensors, config=config if said is None else {**config, "tie_word_embeddings": said}
    )
    return tensors


def chain_of(folder: Path, kinds: Sequence[str]) -> tuple[Chain, list[Tensors]]:
    tensors = [member(folder / str(i), kind, i) for i, kind in enumerate(kinds)]
    members = tuple(Member(reference=str(folder / str(i))) for i in range(len(kinds)))
    return load_chain(ChainConfig(checkpoints=members), settings=Settings()), tensors


def write(chain: Chain, factors: list[float], folder: Path) -> tuple[Tensors, dict[str, object]]:
    with stage_variant(chain, factors, folder) as staged:
        staged.publish()
    verify_variant(folder, share=1, settings=Settings())
    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def head(tensors: Tensors) -> torch.Tensor:
    return tensors.get(HEAD, tensors[EMBEDDING])


def is_sound(base: str, latest: str) -> bool:
    """A head of its own in a blend that ties it would be lost; all else goes."""
    if "tied-but-other" in (base, latest):
        return False
    if (base, latest) == ("own-unsaid", "copied-unsaid"):
        return True  # one family and both silent: tied both or none, so nothing is read
    ties = latest in (*TIED, "copied-unsaid")
    return not (ties and base in OWN)


@pytest.mark.abuse(111)
@pytest.mark.parametrize("latest", KINDS)
@pytest.mark.parametrize("base", KINDS)
def test_every_pair_gives_the_latest_at_zero_or_is_refused(
    base: str, latest: str, tmp_path: Path
) -> None:
    if not is_sound(base, latest):
        with pytest.raises(IncompatibleChainError, match=r"lm_head\.weight"):
            chain_of(tmp_path, [base, latest])
        return
    chain, (first, last) = chain_of(tmp_path, [base, latest])
    written, config = write(chain, [0.0], tmp_path / "v0")
    assert written.keys() == last.keys()
    assert all(torch.equal(written[name], last[name]) for name in last)
    said, _ = KINDS[latest]
    assert config.get("tie_word_embeddings") == said
    assert ("tie_word_embeddings" in config) == (said is not None)
    written, _ = write(chain, [0.5], tmp_path / "v1")
    assert written.keys() == last.keys()
    for name in last:
        before = head(first) if name == HEAD else first[name]
        torch.testing.assert_close(written[name], 1.5 * last[name] - 0.5 * before)
    # whatever the model's head is, it moved as the heads of the two did
    torch.testing.assert_close(head(written), 1.5 * head(last) - 0.5 * head(first))


@pytest.mark.parametrize(
    ("kinds", "is_refused"),
    [
        (("tied", "own", "own"), False),
        (("tied-stored", "tied", "own"), False),
        (("own", "tied", "own"), False),
        (("tied", "own", "tied"), True),
        (("tied-stored", "own", "tied-stored"), True),
    ],
)
def test_every_member_counts(kinds: list[str], is_refused: bool, tmp_path: Path) -> None:
    if is_refused:
        with pytest.raises(IncompatibleChainError, match=r"lm_head\.weight"):
            chain_of(tmp_path, kinds)
        return
    chain, all_tensors = chain_of(tmp_path, kinds)
    written, _ = write(chain, [0.5, -0.25], tmp_path / "v")
    heads = [head(tensors) for tensors in all_tensors]
    expected = heads[2] + 0.5 * (heads[1] - heads[0]) - 0.25 * (heads[2] - heads[1])
    torch.testing.assert_close(head(written), expected)


def test_an_adapter_of_a_head_that_is_tied_is_refused(tmp_path: Path) -> None:

    for kind in ("tied-stored", "own"):
        member(tmp_path / kind, kind, 0)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["lm_head"]})
    )
    factors = {"A": torch.ones(2, 8), "B": torch.ones(16, 2)}
    save_file(
        {f"base_model.model.lm_head.lora_{s}.weight": t for s, t in factors.items()},
        adapter / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )

    def chain(base: str) -> Chain:
        members = tuple(Member(reference=str(tmp_path / name)) for name in (base, "adapter"))
        return load_chain(ChainConfig(checkpoints=members), settings=Settings())

    assert chain("own").transitions == 1
    with pytest.raises(AdapterUnsupportedError, match="lm_head.*ties to its embedding"):
        chain("tied-stored")
