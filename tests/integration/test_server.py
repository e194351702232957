"""``ztom up`` on real Ray: the wire as written down, from login to a mastered checkpoint; kill -9.

One search answers for the first two of the tests, which are written from the HTTP contract alone.
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import grpc
import psutil
import pytest
import requests
import transformers
from server_helpers import PASSWORD, tar_of
from toys import make_chain
from up import Up, wait_for

from ztom.evaluation.gate.verdict import Verdict
from ztom.evaluation.runs.models import open_model
from ztom.evaluation.suites.lock import lock_suite
from ztom.ledger import Ledger
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus
from ztom.settings import Settings
from ztom.variants.recipe import read_recipe


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("up")
    server = Up(home, "poll_s=0.1")  # on the engine that it has by default
    (home / "roots").mkdir()
    make_chain(home / "roots" / "chain", members=3)
    write_data(home / "roots")
    write_suite(home / "roots" / "said", says="never said by anybody")
    options = ["--data", str(server.data), "--password-stdin"]
    server.ztom("admin", "create", "root", "root@example.org", *options, input=PASSWORD + "\n")
    server.start()
    yield server
    server.stop()


def write_data(folder: Path) -> None:
    with (folder / "s.jsonl").open("w") as stimuli, (folder / "e.txt").open("w") as expected:
        for i in range(40):
            question = f"Question {i * 7919 % 1000}: what is {i} and {i * 3}?"
            stimuli.write(json.dumps([{"role": "user", "content": question}]) + "\n")
            expected.write(f"The answer is {i * 4}.\n")


def write_suite(folder: Path, *, says: str, count: int = 40) -> None:
    """A locked suite of probes: the answer has to match."""
    folder.mkdir(parents=True)
    settings = {
        "name": folder.name,
        "version": "1.0.0",
        "layer": "behavioural",
        "metric": "checks",
        "owner": "me",
        "decode": {"max_new_tokens": 4},
        "checks": [{"kind": "regex", "pattern": says}],
    }
    (folder / "suite.yaml").write_text(json.dumps(settings))
    lines = [{"id": f"i{i}", "input": f"suite item {i}"} for i in range(count)]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lock_suite(folder)


def filled_project(
    up: Up, session: requests.Session, *, compressed: bool = False
) -> tuple[str, list[str]]:
    made = session.post(
        f"{up.url}/project",
        json={"name": "demo", "description": "", "format": "HF_TEXT_GENERATION"},
        timeout=120,
    )
    project = made.json()["id"]
    for folder in sorted((up.home / "roots" / "chain").iterdir()):
        answer = session.post(
            f"{up.url}/project/file",
            data={"projectId": project, "format": "HF_TEXT_GENERATION", "fileName": folder.name},
            files={"file": (f"{folder.name}.tar", tar_of(folder, compressed=compressed))},
            timeout=240,
        )
        assert answer.status_code == 201, answer.text
    return project, [file["id"] for file in answer.json()["fileList"]]


def search_body(up: Up, project: str, **more: Any) -> dict[str, Any]:
    roots = up.home / "roots"
    return {
        "projectId": project,
        "scalingFactorLimit": 1.0,
        "stimulusPaths": [str(roots / "s.jsonl")],
        "expectedOutputPath": str(roots / "e.txt"),
        "batchSize": 64,
        "inferenceConfigJson": {"max_new_tokens": 4},
        "error": "cross_entropy",
        "maxEvaluations": 5,
        "insist": True,
        **more,
    }


@dataclass(frozen=True)
class KilledSearch:
    """A search on the default engine that was killed twice, and came to its end."""

    project: str
    files: list[str]
    record: RequestRecord

    @property
    def result(self) -> dict[str, Any]:
        assert self.record.result is not None, self.record.reason
        return dict(self.record.result)


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def search(up: Up) -> KilledSearch:
    """Real checkpoints, with a suite that the variant does not pass.

    The checkpoints are compressed, so the server unpacks them; other tests have plain tars. Once
    trials have ended the server's replica is killed, and then Ray.
    """
    session = up.session()
    project, files = filled_project(up, session, compressed=True)
    more = {
        "detailedOutput": "STORE_AND_RETURN",
        "suitePaths": [str(up.home / "roots" / "said")],
        "error": [{"function": "cross_entropy"}, {"function": "token_f1", "weight": 0.1}],
        "sampler": "cobyqa",
    }
    body = {**search_body(up, project), **more}
    body.pop("batchSize")
    request = session.post(f"{up.url}/v1/searches", json=body, timeout=120).json()["requestId"]

    def trials() -> int:
        found = session.get(f"{up.url}/v1/searches/{request}", timeout=120).json()
        assert found["status"] in ("queued", "running"), found["reason"]
        return int(found["progress"]["trials"])

    wait_for(lambda: trials() >= 2, 900)
    up.replica().kill()
    up.wait_until_up()
    with Ledger.open(up.data / "ledger.db") as ledger:
        if ledger.requests.get(request).status.is_open:
            before = up.children()
            up.kill_ray()
            # for an init system to see
            assert up.process.wait(120) == 3  # type: ignore[union-attr]
            # the search's driver sees by itself that its Ray has ended
            left = [p for p in filter(is_alive, before) if "tune_search" not in p.cmdline()]
            assert not left
            up.start()
        ended = wait_for(
            lambda: (r := ledger.requests.get(request)).status.is_open is False and r, 900
        )
    return KilledSearch(project, files, ended)


def test_from_login_to_a_mastered_checkpoint(up: Up, search: KilledSearch, tmp_path: Path) -> None:
    result, project, ids = search.result, search.project, search.files
    assert result["trained_model_error"] > 0
    assert len(result["optimized_scaling_factors"]) == 2
    assert result["number_of_inferences"] == 2 + 5 + 3
    assert result["noise_floor"] == 0.0
    assert result["holdout"]["verdict"]["outcome"] in ("improved", "no improvement", "inconclusive")
    check_gate(up, search.record.id, result)
    session = up.session()
    files = session.get(f"{up.url}/project/{project}", timeout=120).json()["fileList"]
    assert [file["id"] for file in files[:3]] == ids
    assert [file["id"] for file in files[3:]] == [search.record.checkpoint_id]
    (stored,) = session.get(
        f"{up.url}/project/{project}/analysis/result",
        params={"requestId": search.record.id},
        timeout=120,
    ).json()
    assert stored["result"]["optimized_scaling_factors"] == result["optimized_scaling_factors"]
    address = session.get(
        f"{up.url}/project/{project}/analysis/result/artifact",
        params={"requestId": search.record.id},
        timeout=120,
    ).json()
    artifact = requests.get(address, timeout=120)
    assert artifact.headers["content-type"].startswith("application/")
    assert artifact.json()["study_id"] == stored["studyId"]
    assert artifact.json()["generated_tokens"] > 0
    content = session.get(
        f"{up.url}/project/file/{search.record.checkpoint_id}",
        params={"projectId": project},
        timeout=240,
    ).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(tmp_path / "mastered", filter="data")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mastered")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "mastered")
    ids_ = tokenizer("Question", return_tensors="pt").input_ids
    assert model.generate(ids_, max_new_tokens=2, do_sample=False).shape[1] > ids_.shape[1]
    inference = session.post(
        f"{up.url}/dynamic_analysis/sensitivity/batch",
        json={
            "projectId": project,
            "fileId": ids[2],
            "scalingFactor": "-1.0",
            "stimulusPaths": [str(up.home / "roots" / "s.jsonl")],
            "inferenceConfigJson": '{"max_new_tokens": 3}',
        },
        timeout=600,
    ).json()
    assert len(inference["model_output"]) == len(inference["attenuated_model_output"]) == 40
    assert inference["model_output"] != inference["attenuated_model_output"]


@pytest.mark.abuse(56, 57)
def test_a_search_outlives_its_server(up: Up, search: KilledSearch) -> None:
    """It ends with its budget all the same."""
    assert search.record.status is RequestStatus.FINISHED, search.record.reason
    with Ledger.open(up.data / "ledger.db") as ledger:
        study = ledger.studies.latest(search.record.id)
        assert study is not None
        trials = ledger.studies.trials(study.id)
        assert ledger.audit.check() > 0
    kinds = [str(trial.kind) for trial in trials]
    assert kinds.count("baseline") == 2
    assert kinds.count("startup") + kinds.count("search") == 5
    assert len({trial.number for trial in trials}) == len(trials)
    files = up.session().get(f"{up.url}/project/{search.project}", timeout=120).json()["fileList"]
    mastered = [file["part"] for file in files].count("MASTERED")
    assert mastered == (search.record.checkpoint_id is not None)


def check_gate(up: Up, request: str, result: dict[str, Any]) -> None:
    """What the gate said stands in the answer, in its files, in the recipe and in the ledger."""
    assert result["holdout"]["gate"]["outcome"] == "fail"
    assert result["holdout"]["insisted"]
    digest = result["variant_digest"]
    run = up.data / "requests" / request / "run"
    verdict = Verdict.from_bytes((run / "verdict.json").read_bytes())
    assert (verdict.outcome, verdict.candidate.digest) == ("fail", digest)
    trained = sorted((up.home / "roots" / "chain").iterdir())[-1]
    assert verdict.champion.digest == open_model(str(trained), settings=Settings()).ref.digest
    assert read_recipe(run / "variant").evidence.gate["outcome"] == "fail"
    with Ledger.open(up.data / "ledger.db") as ledger:
        assert ledger.verdicts.latest(digest, project_id=None).outcome == "fail"
        trials = ledger.studies.trials(ledger.studies.latest(request).id)
    assert len({trial.outcome.error for trial in trials}) >= 5
    assert ">fail<" in (run / "report.html").read_text()


@pytest.mark.abuse(85)
def test_ports_are_for_this_machine_only(up: Up) -> None:
    """All but one: a Serve replica's own gRPC port, which Ray opens on every interface.

    That one answers to nobody who does not know Ray's token.
    """
    open_to_all: dict[int, str] = {}
    for process in [psutil.Process(up.process.pid), *up.children()]:  # type: ignore[union-attr]
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                host = connection.laddr.ip.removeprefix("::ffff:")
                if host not in ("127.0.0.1", "::1"):
                    open_to_all[connection.laddr.port] = process.name()
    assert all(name.startswith("ray::ServeReplica") for name in open_to_all.values())
    for port in open_to_all:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.abuse(82, 83)
def test_slow_headers_are_cut_and_health_stays_up(up: Up) -> None:
    host, port = up.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), timeout=240) for _ in range(50)]
    for connection in idle:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: ")
    began = time.monotonic()
    assert requests.get(f"{up.url}/health", timeout=30).status_code == 200
    while True:
        try:
            idle[0].sendall(b"x")
            if idle[0].recv(1000, socket.MSG_DONTWAIT) is not None:
                break
        except BlockingIOError:
            time.sleep(0.5)
        except OSError:
            break
        assert time.monotonic() - began < 120
    for connection in idle:
        connection.close()


@pytest.mark.abuse(8, 58)
def test_kill_9_during_an_upload_leaves_nothing(up: Up) -> None:
    session = up.session()
    project = session.post(f"{up.url}/project", json={"name": "cut"}, timeout=120).json()["id"]
    replica = up.replica()

    def slowly() -> Iterator[bytes]:
        yield (
            b'--edge\r\nContent-Disposition: form-data; name="projectId"\r\n\r\n'
            + project.encode()
            + b'\r\n--edge\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
        )
        for _ in range(100):
            time.sleep(0.1)
            yield b"x" * 100_000

    def send() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        try:
            session.post(f"{up.url}/project/file", data=slowly(), headers=headers, timeout=240)
        except requests.RequestException:
            return

    sender = threading.Thread(target=send)
    sender.start()
    wait_for(lambda: any((up.data / "staging").iterdir()))
    replica.kill()
    sender.join(240)
    up.wait_until_up()
    wait_for(lambda: not any((up.data / "staging").iterdir()))
    assert session.get(f"{up.url}/project/{project}", timeout=120).json()["fileList"] == []
    with Ledger.open(up.data / "ledger.db") as ledger:
        assert ledger.audit.check() > 0


def test_kill_9_during_a_metatune_leaves_nothing_half_done(up: Up) -> None:
    session = up.session()
    project, ids = filled_project(up, session)
    body = {"projectId": project, "fileIds": ids[1:], "scalingFactors": [0.1, 0.2]}
    outcome: list[int] = []

    def send() -> None:
        try:
            answer = session.post(f"{up.url}/metatune", json=body, timeout=240)
            outcome.append(answer.status_code)
        except requests.RequestException:
            outcome.append(0)

    sender = threading.Thread(target=send)
    sender.start()
    with Ledger.open(up.data / "ledger.db") as ledger:

        def asked() -> Any:
            found = ledger.requests.of_project(project)
            return [r for r in found if r.kind is RequestKind.METATUNE]

        request = wait_for(asked)[0]
        up.replica().kill()
        sender.join(240)
        up.wait_until_up()
        ended = wait_for(
            lambda: (r := ledger.requests.get(request.id)).status.is_open is False and r
        )
        assert ended.status is RequestStatus.FAILED
        assert outcome != [200]
        assert ledger.audit.check() > 0
        folder = up.data / "requests" / request.id
        wait_for(lambda: not (folder / "variant").exists() or _on_record(ledger, folder))


def _on_record(ledger: Ledger, folder: Path) -> bool:
    return str(folder / "variant") in {variant.address for variant in ledger.variants.all()}


@pytest.mark.abuse(49, 102)
def test_no_secret_is_open_to_others(up: Up) -> None:
    """The data folder, Ray's token, and what Ray writes of us, looked at as somebody else."""
    up.data.chmod(0o755)  # as one that was there before may be
    assert faults.readable_by_a_stranger(up.data) == [up.data]
    up.data.chmod(0o700)
    assert faults.readable_by_a_stranger(Path("~/.ray").expanduser()) == []
    logs = up.ray_logs()
    open_files = [path for path in faults.readable_by_a_stranger(logs) if path.is_file()]
    assert open_files == []


@pytest.mark.abuse(109)
def test_a_second_server_is_refused_while_the_first_serves(up: Up) -> None:
    second = subprocess.run(
        [up.command, "up", "--data", str(up.data), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=up.environment,
        timeout=120,
    )
    assert second.returncode == 3
    assert up.process is not None
    assert f"process {up.process.pid} on" in " ".join(second.stderr.split())
    assert up.url in " ".join(second.stderr.split())
    assert requests.get(f"{up.url}/health", timeout=30).status_code == 200


def test_sigterm_lets_what_is_in_work_be_answered(up: Up) -> None:
    """The last of these tests: it stops the server."""
    session, answers = up.session(), list[int]()
    project = session.post(f"{up.url}/project", json={"name": "late"}, timeout=120).json()["id"]
    content = tar_of(min((up.home / "roots" / "chain").iterdir()))

    def slowly() -> Iterator[bytes]:
        yield (
            b'--edge\r\nContent-Disposition: form-data; name="projectId"\r\n\r\n'
            + project.encode()
            + b'\r\n--edge\r\nContent-Disposition: form-data; name="format"\r\n\r\n'
            + b"HF_TEXT_GENERATION"
            + b'\r\n--edge\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
        )
        for part in range(20):
            time.sleep(0.3)
            yield content[part * len(content) // 20 : (part + 1) * len(content) // 20]
        yield b"\r\n--edge--\r\n"

    def send() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        where = f"{up.url}/project/file"
        answers.append(session.post(where, data=slowly(), headers=headers, timeout=240).status_code)

    sender = threading.Thread(target=send)
    sender.start()
    wait_for(lambda: any((up.data / "staging").iterdir()))
    up.stop()
    sender.join(60)
    assert answers == [201]
    assert up.process is not None
    assert up.process.returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{up.url}/health", timeout=30)
