"""MLflow's own server as the registry of a chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed import Installed
from mlflow_server import PLACE, mlflow_server
from toys import make_plain_chain


@pytest.mark.skipif(PLACE is None, reason="pip install --target DIR mlflow; ZTOM_MLFLOW=DIR")
@pytest.mark.brings("registry", "versions in MLflow's registry", "a chain, pinned by version")
def test_versions_of_a_registry_are_a_chain(installed: Installed, tmp_path: Path) -> None:
    members = make_plain_chain(tmp_path / "models", members=2)
    chain = tmp_path / "chain.yaml"
    chain.write_text("checkpoints: ['models:/support/1', 'models:/support@champion']\n")
    with mlflow_server(tmp_path, members) as address:
        options = {"env": {"MLFLOW_TRACKING_URI": address}, "cwd": tmp_path}
        done = installed.run(
            "blend", chain, "--factors", "0.5", "--output", "mastered", "--json", **options
        )
        assert done.returncode == 0, done.stderr
        recipe = json.loads((tmp_path / "mastered" / "recipe.json").read_text())
        references = [member["reference"] for member in recipe["members"]]
        assert references == ["models:/support/1", "models:/support/2"]
        chain.write_text("checkpoints: ['models:/support/1', 'models:/suport/2']\n")
        wrong = installed.run("inspect", chain, **options)
        assert wrong.returncode != 0
        assert "there is no model suport, version 2, in MLflow's registry" in wrong.stderr
