"""Variants without weights: the papers are in order, and nothing could run them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ztom.variants.manifest import MANIFEST, build_manifest
from ztom.variants.recipe import RECIPE, Evidence, Recipe, RecipeMember

ZEROS = "0" * 64


def write_folder(
    folder: Path,
    *,
    verdict: str | None = "improved",
    form: Literal["dense", "adapter"] = "dense",
    base: str = "b" * 64,
) -> tuple[Path, str]:
    """A variant's folder and its digest; the folder's name makes it unlike others."""
    folder.mkdir(parents=True)
    evidence = None
    if verdict is not None:
        evidence = Evidence(
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
            insisted=False,
            versions={},
        )
    recipe = Recipe(
        topology="sequence",
        latest=1,
        members=(
            RecipeMember(reference="/models/base", sha256=base, tag="base"),
            RecipeMember(reference="/models/one", sha256="c" * 64, tag="one"),
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
