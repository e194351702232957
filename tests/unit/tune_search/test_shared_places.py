"""What the other nodes of a cluster have to see, decided without a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import shared_disk
from cluster.shared_disk import OtherNode
from tune_search.shared_places import check_shared_places
from ztom.blending.chain_file import ChainConfig
from ztom.errors import ConfigError
from ztom.search.config_files import parse_config
from ztom.settings import Settings

NODES = (OtherNode("1", "worker-1 (10.0.0.2)"),)


def look(seen: Path) -> Any:
    """A node that sees one folder alone."""

    def ask(
        nodes: Sequence[OtherNode], *, shared: Sequence[Path], there: Sequence[Path]
    ) -> Mapping[Path, Sequence[str]]:
        paths = [path for path in (*shared, *there) if not path.is_relative_to(seen)]
        return {path: [node.name for node in nodes] for path in paths}

    return ask


def check(tmp_path: Path, *, job: bool = False, storage: object = None, **more: object) -> None:
    content = {"chain": "c.yaml", "stimuli": "s.txt", "error": "rouge_l", **more}
    chain = ChainConfig.model_validate({"checkpoints": ["gs://b/0", f"{tmp_path}/shared/1"]})
    settings = Settings(storage=None if storage is None else str(storage))
    config = parse_config(content, folder=tmp_path)
    check_shared_places(
        config, chain, settings, nodes=NODES, is_job=job, look=look(tmp_path / "shared")
    )


def test_a_variant_on_one_nodes_disk_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"worker-1 .*does not see.*Set ZTOM_STORAGE"):
        check(tmp_path, output="out")
    check(tmp_path, output="shared/out")
    check(tmp_path, output="out", storage="gs://bucket/z")
    check(tmp_path, output="out", storage=tmp_path / "shared" / "z")
    check(tmp_path, output="gs://bucket/out", ledger="postgresql+psycopg://db/ztom")
    with pytest.raises(ConfigError, match="Set ZTOM_STORAGE"):
        check(tmp_path, output="shared/out", storage=tmp_path / "here")


def test_a_job_has_its_output_and_its_ledger_where_the_next_one_finds_them(
    tmp_path: Path,
) -> None:
    storage = "gs://bucket/z"
    with pytest.raises(ConfigError, match=r"search's output.*Give output: gs://"):
        check(tmp_path, job=True, storage=storage, output="out", ledger="postgresql://db/ztom")
    for ledger in (f"{tmp_path}/x/l.db", f"sqlite:///{tmp_path}/x/l.db"):
        with pytest.raises(ConfigError, match=r"the ledger: .*PostgreSQL"):
            check(tmp_path, job=True, storage=storage, output="shared/out", ledger=ledger)
    check(tmp_path, job=True, output="shared/out")
    check(tmp_path, job=True, output="gs://b/out", ledger="postgresql+psycopg://db/ztom")


def test_a_checkpoint_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    chain = ChainConfig.model_validate({"checkpoints": ["gs://b/0", f"{tmp_path}/here/1"]})
    content = {"chain": "c.yaml", "stimuli": "s.txt", "error": "rouge_l", "output": "out"}
    config = parse_config(content, folder=tmp_path / "shared")
    with pytest.raises(ConfigError, match=f"a checkpoint: got {tmp_path}/here/1"):
        check_shared_places(
            config, chain, Settings(), nodes=NODES, is_job=False, look=look(tmp_path / "shared")
        )


def test_a_node_sees_a_file_only_with_its_content(tmp_path: Path) -> None:
    mark = shared_disk._mark(tmp_path / "folder")
    content = mark.read_text()
    assert shared_disk._unseen({str(mark): content}, [str(tmp_path)]) == []
    other = {str(mark): secrets.token_hex(16), str(tmp_path / "none"): content}
    missing = shared_disk._unseen(other, [str(tmp_path / "nothing")])
    assert missing == [str(tmp_path / "nothing"), str(mark), str(tmp_path / "none")]
