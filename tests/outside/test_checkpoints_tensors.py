"""Weights as the world saves them, blended by the installed command.

All are blended in one process of the installation: what takes seconds is to import what it needs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from foreign_chains import make_model, nudge, rewrite, tensors_of
from installed import Installed
from toys import make_tokenizer

State = dict[str, torch.Tensor]
NAME = "model.layers.1.mlp.up_proj.weight"
#: Runs each command line of standard input in turn and prints what each said.
RUN_ALL = """
import contextlib, io, json, sys
from ztom.cli.main import main
answers = {}
for name, arguments in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["ztom", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    answers[name] = [status or 0, *(" ".join(text.getvalue().split()) for text in (out, err))]
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Blend:
    """What became of one pair of checkpoints.

    Attributes:
        status: Exit status of the command.
        stdout: Its standard output on one line.
        stderr: Its standard error on one line.
        out: Folder of the variant.
        tuned: Folder of the latest checkpoint.
        states: Tensors of both checkpoints before they were changed.
    """

    status: int
    stdout: str
    stderr: str
    out: Path
    tuned: Path
    states: tuple[State, State]

    def check(self, factor: float) -> None:
        """The variant is the blend of the two, under the names of the latest."""
        assert self.status == 0, self.stderr
        written, (base, tuned) = tensors_of(self.out), self.states
        assert written.keys() == tuned.keys()
        for name, tensor in tuned.items():
            torch.testing.assert_close(written[name], (1 + factor) * tensor - factor * base[name])


def headless(base: Path, tuned: Path) -> None:
    bare = {name.removeprefix("model."): t for name, t in tensors_of(base).items()}
    rewrite(base, bare, architectures=["LlamaModel"])


def hub_gpt2(base: Path, tuned: Path) -> None:
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(2)}
    rewrite(base, {n.removeprefix("transformer."): t for n, t in tensors_of(base).items()} | masks)


def stacked(base: Path, tuned: Path) -> None:
    make_model("mixtral").save_pretrained(base, save_original_format=False)


def compiled(base: Path, tuned: Path) -> None:
    rewrite(tuned, {f"_orig_mod.{n}": t for n, t in tensors_of(tuned).items()})


def half_compiled(base: Path, tuned: Path) -> None:
    state = tensors_of(tuned)
    rewrite(tuned, {f"_orig_mod.{n}" if "layers.0" in n else n: t for n, t in state.items()})


def changed(change: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]) -> Callable[..., None]:
    def prepare(base: Path, tuned: Path) -> None:
        state = tensors_of(base)
        rewrite(base, state | dict(change(state[NAME])))

    return prepare


def left_behind(base: Path, tuned: Path) -> None:
    for script in ("train.py", "zero_to_fp32.py", "modeling_own.py"):
        (tuned / script).write_text("raise SystemExit('this was run')")
    (tuned / "NOTICE").write_bytes(b"\xff kept")
    config = {
        "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    }
    rewrite(tuned, tensors_of(tuned), **config)


#: Family, what is done to the pair, and the factor.
CASES: dict[str, tuple[str, Callable[[Path, Path], None], float]] = {
    "headless": ("llama", headless, 0.5),
    "gpt2": ("gpt2", hub_gpt2, 0.5),
    "experts": ("mixtral", stacked, -0.25),
    "compiled": ("llama", compiled, 0.5),
    "half-compiled": ("llama", half_compiled, 0.5),
    "fp8": ("llama", changed(lambda t: {NAME: t.to(torch.float8_e4m3fn)}), 0.5),
    "packed": (
        "llama",
        changed(lambda t: {f"{NAME}.absmax": torch.ones(4), NAME: t.to(torch.uint8)}),
        0.5,
    ),
    "nan": ("llama", changed(lambda t: {NAME: torch.full_like(t, torch.nan)}), 0.5),
    "left-behind": ("llama", left_behind, 0.0),
}


@pytest.fixture(scope="module")
def blends(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Blend]:
    """Every case, blended."""
    home = tmp_path_factory.mktemp("tensors")
    commands, states = {}, {}
    for name, (family, prepare, factor) in CASES.items():
        folders = home / name / "base", home / name / "tuned"
        model = make_model(family)
        for position, folder in enumerate(folders):
            (nudge(model, 1) if position else model).save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
        states[name] = (tensors_of(folders[0]), tensors_of(folders[1]))
        prepare(*folders)
        chain = home / name / "chain.yaml"
        chain.write_text(json.dumps({"checkpoints": ["base", "tuned"]}))
        out = ["--output", str(home / name / "out")]
        commands[name] = ["blend", str(chain), f"--factors={factor}", *out]
    printed = subprocess.run(
        [str(installed.python), "-c", RUN_ALL],
        input=json.dumps(commands),
        env=installed.environment(),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert printed.returncode == 0, printed.stderr
    answers = json.loads(printed.stdout.splitlines()[-1])
    return {
        name: Blend(*answers[name], home / name / "out", home / name / "tuned", states[name])
        for name in CASES
    }


@pytest.mark.brings("checkpoint", "a base without the model's prefix", "blends")
def test_a_headless_base(blends: Mapping[str, Blend]) -> None:
    blends["headless"].check(0.5)
    assert "under other names than" in blends["headless"].stdout


@pytest.mark.brings("checkpoint", "masks and positions stored by some members", "ignored, named")
@pytest.mark.brings("checkpoint", "GPT-2 as the Hub has it", "blends")
def test_derived_buffers(blends: Mapping[str, Blend]) -> None:
    blends["gpt2"].check(0.5)
    assert "computed by the model and not blended" in blends["gpt2"].stdout


@pytest.mark.brings("checkpoint", "experts one by one and stacked, in one chain", "blends")
def test_experts_of_two_versions(blends: Mapping[str, Blend]) -> None:
    blends["experts"].check(-0.25)


@pytest.mark.brings("checkpoint", "a compiled or wrapped model's prefixes", "stripped, or refused")
def test_wrapped_names(blends: Mapping[str, Blend]) -> None:
    blends["compiled"].check(0.5)
    refused = blends["half-compiled"]
    assert refused.status != 0
    assert "compiled or wrapped" in refused.stderr


@pytest.mark.brings("checkpoint", "fp8 weights", "refused with the way to convert")
@pytest.mark.brings("checkpoint", "packed 4-bit weights without a config", "refused by method")
@pytest.mark.brings("checkpoint", "NaN in a checkpoint", "names the checkpoint and tensor")
@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("fp8", ("quantised (fp8)", "FineGrainedFP8Config(dequantize=True)")),
        ("packed", ("quantised (bitsandbytes)",)),
        ("nan", (f"base cannot be blended, {NAME} holds values that are not finite",)),
    ],
)
def test_weights_that_cannot_be_blended(
    blends: Mapping[str, Blend], case: str, parts: tuple[str, ...]
) -> None:
    assert blends[case].status != 0
    assert all(part in blends[case].stderr for part in parts), blends[case].stderr
    assert "Traceback" not in blends[case].stderr
    assert not blends[case].out.exists()


@pytest.mark.brings("checkpoint", "scripts in a trainer's folder", "ignored, named, never run")
@pytest.mark.brings("checkpoint", "`auto_map` of a family that ships", "the shipped class")
@pytest.mark.brings("checkpoint", "a stale `quantization_config`", "said to be stale, blends")
@pytest.mark.brings("checkpoint", "alpha = 0", "the latest checkpoint, bit for bit")
def test_what_is_left_behind(blends: Mapping[str, Blend]) -> None:
    blend = blends["left-behind"]
    blend.check(0.0)
    for part in ("train.py (code)", "is stale", "class that transformers ships is used"):
        assert part in blend.stdout
    written, latest = tensors_of(blend.out), tensors_of(blend.tuned)
    assert all(torch.equal(written[name], latest[name]) for name in latest)
    config = json.loads((blend.out / "config.json").read_text())
    assert not {"auto_map", "quantization_config"} & config.keys()
    assert (blend.out / "NOTICE").read_bytes() == b"\xff kept"
    modes = {(blend.out / f).stat().st_mode for f in ("model.safetensors", "config.json")}
    assert len(modes) == 1
    assert not list(blend.out.glob("*.py"))
