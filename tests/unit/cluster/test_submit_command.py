"""What ``ztom submit`` does around the job: the check before it, and what comes back."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster.examination import MARK, NodeReport
from cluster.jobs import RayJobs
from ztom.cli.actions import submit
from ztom.errors import ConfigError
from ztom.io.yaml import dump_yaml

NODE = NodeReport("10.0.0.6", token="12345678", versions={"ray": "2.60.0"})
LEDGER = "postgresql+psycopg://ztom@10.0.0.5/ztom"


class Cluster:
    """Ray's client: an examination answers with reports, a search ends as it is told to."""

    def __init__(self, *reports: NodeReport, end: str = "SUCCEEDED") -> None:
        self.reports, self.end = reports, end
        self.searches: list[dict[str, Any]] = []
        self.folders: list[set[str]] = []

    def submit_job(self, **options: Any) -> str:
        if "tune_search" in options["entrypoint"]:
            self.searches.append(options)
            folder = Path(options["runtime_env"]["working_dir"])
            self.folders.append({path.name for path in folder.iterdir()})
        return str(options["submission_id"])

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        end = JobStatus(self.end) if self.searches else JobStatus.SUCCEEDED
        return SimpleNamespace(status=end, message="")

    def get_job_logs(self, job_id: str) -> str:
        reports = json.dumps([asdict(report) for report in self.reports])
        return "trial 1\n" if self.searches else f"{MARK}{reports}\n"

    def stop_job(self, job_id: str) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on a search whose output is a folder; returns the exit status."""
    output = tmp_path / "shared/runs/support"
    output.mkdir(parents=True)
    (output / "result.json").write_text('{"name": "support"}')
    (tmp_path / "search.jsonl").write_text("{}")
    content = {
        "name": "support",
        "chain": {"checkpoints": ["gs://team-models/base", "gs://team-models/first"]},
        "stimuli": "search.jsonl",
        "error": "cross_entropy",
        "output": str(output),
    }
    (tmp_path / "search.yaml").write_text(dump_yaml(content))

    def command(cluster: Cluster, *, follow: bool = True) -> int:
        monkeypatch.setattr(submit, "RayJobs", lambda at: RayJobs(at, connect=lambda _: cluster))
        return submit.submit_command(
            tmp_path / "search.yaml",
            [],
            cluster="http://10.0.0.5:8265",
            ledger=LEDGER,
            storage=None,
            to=tmp_path / "here",
            follow=follow,
            as_json=False,
        )

    return command


def test_a_search_is_followed_and_its_result_fetched(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, stderr = Cluster(NODE), io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    assert run(cluster) == 0
    assert "trial 1" in stderr.getvalue()
    assert json.loads((tmp_path / "here/result.json").read_text()) == {"name": "support"}
    assert not (tmp_path / "here/report.html").exists()
    (job,) = cluster.searches
    assert job["entrypoint"] == "python -m tune_search search.yaml --resume"
    assert job["metadata"]["search"] == "support"
    assert job["submission_id"].startswith("ztom-support-")
    assert cluster.folders == [{"search.yaml", "files"}]


def test_a_cluster_that_cannot_read_what_it_names_gets_no_job(run: Any) -> None:
    blind = replace(NODE, unreadable={"gs://team-models/base": "forbidden"})
    cluster = Cluster(NODE, replace(blind, address="10.0.0.7"))
    with pytest.raises(
        ConfigError, match=r"node 10\.0\.0\.7: it cannot read gs://team-models/base"
    ):
        run(cluster)
    assert cluster.searches == []


def test_what_only_a_server_needs_does_not_stop_a_search(run: Any) -> None:
    assert run(Cluster(replace(NODE, missing={"RAY_SERVE_ENABLE_HA_PROXY": "slow"}))) == 0


@pytest.mark.parametrize(("end", "status"), [("FAILED", 3), ("STOPPED", 130)])
def test_how_the_job_ended_is_the_exit_status(run: Any, end: str, status: int) -> None:
    assert run(Cluster(NODE, end=end)) == status


def test_detached_it_ends_when_the_cluster_has_the_search(run: Any, tmp_path: Path) -> None:
    assert run(Cluster(NODE), follow=False) == 0
    assert not (tmp_path / "here").exists()
