"""A variant that was pushed to the Hub is served from there, up to what an engine is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import ztom
from hub_client import use_hub
from hub_server import TOKEN, Hub, hub_server
from huggingface_hub import snapshot_download
from toy_variant import write_toy_variant
from transformers import AutoTokenizer

from serve_apps.endpoints.evidence import open_variant
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.identity import identify
from serve_apps.variants.options import engine_options
from ztom.engines.model_fit import check_folder_fit
from ztom.errors import ConfigError, VariantError
from ztom.settings import Settings
from ztom.variants.push import push_variant


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_variant(tmp_path_factory.mktemp("variant"))


@pytest.fixture
def pushed(server: Hub, variant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Digest of the variant, which is on the Hub with a README that somebody edited."""
    server.repos.clear()
    use_hub(monkeypatch, server, tmp_path / "hub", token=TOKEN)
    digest = push_variant(variant, "acme/support").digest
    repo = server.repos["models", "acme/support"]
    readme = repo.commits[repo.refs["main"]]["README.md"]
    repo.commit({"README.md": readme + b"\nEdited on the Hub.\n"})
    return digest


@pytest.mark.brings(
    "registry",
    "a variant that was pushed to the Hub, its README edited there",
    "`ztom serve hf://org/name` serves it; a changed file is refused",
)
def test_serve_takes_the_address_and_an_engine_gets_the_whole_variant(
    pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[VariantArgs, dict[str, Any]]] = []
    monkeypatch.setattr(
        "serve_apps.variants.launch.serve_variant",
        lambda args, **options: served.append((args, options)),
    )
    for address in ("hf://acme/support", "hf://acme/support@main"):
        done = ztom("serve", address, "--port", 0)
        assert done.returncode == 0, done.stderr
        (args, _) = served.pop()
        identity = identify(args)  # every byte of it
        assert (identity.name, identity.digest) == ("support", pushed)
        check_folder_fit(identity.folder)
        options = engine_options(args, identity, on_gpu=False)
        assert options["model"] == options["tokenizer"] == str(identity.folder)
        assert AutoTokenizer.from_pretrained(identity.folder).chat_template


def test_what_is_changed_on_the_hub_is_not_served(
    pushed: str, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[VariantArgs] = []
    monkeypatch.setattr(
        "serve_apps.variants.launch.serve_variant", lambda args, **_: served.append(args)
    )
    repo = server.repos["models", "acme/support"]
    repo.commit({"config.json": repo.commits[repo.refs["main"]]["config.json"] + b" "})
    assert ztom("serve", "hf://acme/support").returncode == 0
    with pytest.raises(VariantError, match=r"changed config\.json"):
        identify(served[0])


def test_a_folder_that_was_downloaded_is_deployed(pushed: str, tmp_path: Path) -> None:
    folder = Path(snapshot_download("acme/support", local_dir=tmp_path / "local"))
    assert (folder / ".gitattributes").exists()
    settings = Settings(allowed_roots=(str(tmp_path),))
    assert open_variant(str(folder), settings).digest == pushed
    assert identify(VariantArgs(variant=folder, name="support")).digest == pushed


def test_a_deployment_by_address_says_how_it_is_fetched() -> None:
    settings = Settings(allowed_roots=("hf://acme",))
    with pytest.raises(ConfigError) as refusal:
        open_variant("hf://acme/support@main", settings)
    assert str(refusal.value) == (
        "a variant is served from a folder: got hf://acme/support@main. Fetch it to where every "
        "node of the cluster can read it: hf download acme/support --revision main --local-dir "
        "FOLDER"
    )
