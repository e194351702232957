"""Variants without weights: the papers are in order, and nothing could run them.

A server whose applications are played on a stage serves them all the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server_helpers import Server, serving

from serve_apps.control_plane.config import ServerConfig
from ztom.client import Client
from ztom.evaluation.gate.verdict import Verdict
from ztom.io.signatures import public_key_of
from ztom.ledger.ledger import Ledger
from ztom.variants.manifest import MANIFEST, build_manifest
from ztom.variants.recipe import RECIPE, Recipe, RecipeMember, SearchEvidence

ZEROS = "0" * 64
#: A release that twenty requests to a step decide.
FAST = {
    "steps": [{"shadow": 100}, {"canary": 50}, {"canary": 100}],
    "min_requests": 20,
    "min_seconds": 0,
    "checks": {
        "error_rate": 0.5,
        "empty": 0.5,
        "latency": None,
        "disagreement": None,
        "feedback": None,
    },
}


def write_folder(
    folder: Path,
    *,
    verdict: str | None = "improved",
    gate: str | None = None,
    form: Literal["dense", "adapter"] = "dense",
    base: str = "b" * 64,
) -> tuple[Path, str]:
    """A variant's folder and its digest; the folder's name makes it unlike others."""
    folder.mkdir(parents=True)
    evidence = None
    if verdict is not None:
        evidence = SearchEvidence(
            study="s",
            config_digest=ZEROS,
            data_digests={},
            error=[],
            seed=0,
            sampler="gp",
            trials_digest=ZEROS,
            number_of_inferences=1,
            search_errors=(1.0, 0.5),
            holdout_errors=(1.0, 0.5),
            verdict={"outcome": verdict},
            gate=None if gate is None else {"outcome": gate},
            insisted=False,
            versions={},
        )
    recipe = Recipe(
        topology="sequence",
        latest=1,
        members=(
            RecipeMember(reference=str(folder.parent / "base"), sha256=base, tag="base"),
            RecipeMember(reference=str(folder.parent / "step"), sha256="c" * 64, tag="one"),
        ),
        chain_digest=ZEROS,
        factors=(0.1,),
        coefficients=(-0.1, 1.1),
        dtype="auto",
        form=form,
        max_shard_bytes=1,
        realised=None,
        versions={},
        evidence=evidence,
    )
    (folder / RECIPE).write_bytes(recipe.to_bytes())
    config = "adapter_config.json" if form == "adapter" else "config.json"
    (folder / config).write_text("{}")
    (folder / "README.md").write_text(folder.name)
    manifest = build_manifest(folder)
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return folder, manifest.digest


def wait_for(condition: Callable[[], Any], what: str, limit_s: float = 120) -> Any:
    """What the condition gives, once it gives something."""
    deadline = time.monotonic() + limit_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen in {limit_s:g} s"
        time.sleep(0.01)


def variants_config(folder: Path, **more: Any) -> ServerConfig:
    """Data in the folder, and the right to refer to the variants in it."""
    roots = folder / "variants"
    roots.mkdir(exist_ok=True)
    return ServerConfig(data=folder / "data", pointer_roots=(str(roots),), poll_s=0.05, **more)


@contextmanager
def reading_variants(folder: Path) -> Iterator[Server]:
    """A server on a folder's variants, which takes what a search has proved for what it is."""
    with serving(variants_config(folder, gate_required=False)) as server:
        yield server


def chief_of(server: Server) -> Client:
    """An administrator's client."""
    session = server.as_user("chief", admin=True)
    return Client(server.url, key=session.headers["Authorization"].removeprefix("Bearer "))


def variant(server: Server, name: str, **options: Any) -> tuple[Path, str]:
    """A new variant where the server reads them: its folder and its digest."""
    return write_folder(Path(server.services.config.pointer_roots[0]) / name, **options)


def deploy(
    server: Server, admin: Client, name: str, alias: str = "support", **wishes: Any
) -> tuple[Path, str]:
    """Deploy a new variant and wait until it has its traffic."""
    options = {k: wishes.pop(k) for k in ("verdict", "gate", "form", "base") if k in wishes}
    folder, digest = variant(server, name, **options)
    admin.endpoints.deploy(alias, path=folder, name=name, **wishes)
    ready(admin, digest, server)
    return folder, digest


def ready(admin: Client, digest: str, server: Server | None = None) -> None:
    """Wait until a deployment has its traffic, and gateways know."""

    def is_ready() -> bool:
        found = admin.endpoints.deployment(digest)
        assert found.state != "failed", found.reason
        return found.state == "ready" and found.intent is None

    wait_for(is_ready, "the deployment")
    if server is None:
        time.sleep(0.15)  # the gateway's next look
    else:
        gateway_looks(server)


def gateway_looks(server: Server) -> None:
    """Wait until the gateway routes by the table that the ledger has now."""
    version = server.services.ledger.endpoints.routing_version()
    keeper = server.services.gateway._keeper
    wait_for(lambda: keeper.version >= version, "the gateway's look")


def controller_looks(server: Server, rounds: int) -> None:
    """Wait until the controller has begun so many rounds more."""
    goal = server.stage.looks + rounds
    wait_for(lambda: server.stage.looks >= goal, f"{rounds} rounds of the controller")


def verdict_of(
    digest: str,
    outcome: str = "pass",
    *,
    champion: str | None = None,
    seed: int = 0,
    key: Ed25519PrivateKey | None = None,
) -> dict[str, Any]:
    """What the gate says of a variant, as `ztom gate` writes it; unsigned without a key."""
    suite = {"name": "s", "version": "1.0.0", "layer": "frozen", "metric": "exact_match"}
    judged = {
        "suite": {**suite, "digest": ZEROS},
        "outcome": outcome,
        "findings": [{"rule": "harm", "outcome": outcome, "reason": "made up"}],
        "alpha": 0.05,
        "floor": 0.0,
        "margin": 0.0,
        "n": 100,
        "clusters": 100,
    }
    verdict = Verdict.model_validate(
        {
            "outcome": outcome,
            "reasons": ["made up"],
            "suites": [judged],
            "candidate": {"name": "candidate", "digest": digest},
            "champion": champion and {"name": "champion", "digest": champion},
            "first": champion is None,
            "seed": seed,
            "versions": {},
        }
    )
    document: dict[str, Any] = json.loads((verdict.signed(key) if key else verdict).to_bytes())
    return document


def trusted_key(ledger: Ledger, name: str = "ci") -> Ed25519PrivateKey:
    """A key that the operator has registered."""
    key = Ed25519PrivateKey.generate()
    ledger.signing_keys.register(name, public_key_of(key), actor="local:test")
    return key
