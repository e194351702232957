"""A notebook's script, written from the wire page alone: from login to the mastered model.

One search on the default engine answers most of the questions; the details of every point are in
``tests/server``.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from server_helpers import PASSWORD, tar_of
from toys import make_chain
from up import Up, wait_for

from ztom.ledger import Ledger

CONFIG = json.dumps({"max_new_tokens": 4, "do_sample": False, "num_beams": 1})


class Script:
    """What the public client does, with `requests`."""

    def __init__(self, up: Up, home: Path) -> None:
        self.up, self.home, self.api = up, home, f"{up.url}/api/v2"
        token = requests.post(
            f"{self.api}/auth/login",
            json={"username": "root", "password": PASSWORD},
            timeout=120,
        ).text
        self.headers = {"Authorization": f"Bearer {token}"}
        self.project = ""

    def call(self, method: str, path: str, **options: Any) -> Any:
        url = path if path.startswith("http") else self.up.url + path
        answer = requests.request(method, url, headers=self.headers, timeout=900, **options)
        assert answer.ok, answer.text
        return answer.json()

    def status(self, path: str, **params: str) -> int:
        url = self.up.url + path
        return requests.get(url, headers=self.headers, params=params, timeout=120).status_code

    @property
    def result(self) -> str:
        return f"/project/{self.project}/analysis/result"

    def files(self) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/project/{self.project}")["fileList"])

    def infer(self, path: str, prompts: list[str]) -> dict[str, Any]:
        body = {
            "modelPath": path,
            "format": "HF_TEXT_GENERATION",
            "stimulusPaths": prompts,
            "batchSize": 4,
            "inferenceConfigJson": CONFIG,
        }
        return dict(self.call("POST", "/dynamic_analysis/inference/batch", json=body))


@pytest.fixture(scope="module")
def prompts(outside: Up) -> list[str]:
    """One stimulus a file, as the notebooks have them, and a reply a line in the same order."""
    folder = outside.roots / "client-code"
    folder.mkdir()
    paths = []
    for number in range(16):
        question = f"Question {number * 7919 % 1000}: what is {number} and {number * 3}?"
        path = folder / f"prompt_{number:02d}.json"
        path.write_text(json.dumps([{"role": "user", "content": question}], indent=2))
        paths.append(str(path))
    (folder / "replies.txt").write_text(
        "".join(f"The answer is {number * 4}.\n" for number in range(16))
    )
    return paths


@pytest.fixture(scope="module")
def script(outside: Up, tmp_path_factory: pytest.TempPathFactory) -> Script:
    """A project with three tarred checkpoints, whose contributions are there."""
    script = Script(outside, tmp_path_factory.mktemp("script"))
    made = script.call(
        "POST",
        "/project",
        json={"name": "notebook", "description": "", "format": "HF_TEXT_GENERATION"},
    )
    script.project = made["id"]
    for folder in make_chain(script.home / "chain"):
        script.call(
            "POST",
            "/project/file",
            data={
                "projectId": script.project,
                "format": "HF_TEXT_GENERATION",
                "fileName": f"{folder.name}.tar.gz",
            },
            files={"file": (f"{folder.name}.tar.gz", tar_of(folder, compressed=True))},
        )
    names = ("totalWeightContribution", "totalBiasContribution")
    wait_for(lambda: all(file[name] is not None for file in script.files()[1:] for name in names))
    return script


@pytest.fixture(scope="module")
def answer(script: Script, prompts: list[str]) -> dict[str, Any]:
    """The search, as the original call sends it: it names neither an error function nor a holdout.

    The script polls for its result meanwhile, as others do for theirs.
    """
    body = {
        "projectId": script.project,
        "scalingFactorLimit": 0.5,
        "stimulusPaths": prompts,
        "expectedOutputPath": str(Path(prompts[0]).with_name("replies.txt")),
        "batchSize": 4,
        "inferenceConfigJson": CONFIG,
        "detailedOutput": "STORE_AND_RETURN",
        "maxEvaluations": 2,
        "verbose": True,
        "notKnown": 1,
    }
    return dict(script.call("POST", "/dynamic_analysis/zto/batch", json=body))


@pytest.mark.abuse(110)
@pytest.mark.brings(
    "client code",
    "a search on tarred checkpoints, one stimulus a file",
    "answers on the default engine, at the top and in `result`",
)
def test_a_search_on_the_default_engine(script: Script, answer: dict[str, Any]) -> None:
    result = answer["result"]
    assert {name: answer[name] for name in result} == result
    assert result["trained_model_error"] > 0
    assert len(result["optimized_scaling_factors"]) == 2
    assert result["number_of_inferences"] >= 4
    assert [model["kind"] for model in result["existing"]][-2:] == ["trained", "average"]
    assert result["best_existing"]["search_error"] <= result["trained_model_error"]
    assert result["baseline_inferences"] >= 3
    assert len(result["step_gains"]) == 2
    assert result["verdict"] in ("improved", "no improvement", "inconclusive")
    assert any("verbose" in warning for warning in answer["warnings"])
    assert any("notKnown" in warning for warning in answer["warnings"])
    assert any("num_beams" in warning for warning in answer["warnings"])


@pytest.mark.brings("client code", "polling for results", "oldest first; 404 until there is one")
def test_results_are_listed_and_streamed(script: Script, answer: dict[str, Any]) -> None:
    request = answer["requestId"]
    assert script.call("GET", script.result)[-1]["requestId"] == request
    (one,) = script.call("GET", script.result, params={"requestId": request})
    assert one["result"] == answer["result"]
    whole = script.call(
        "GET", f"{script.result}/artifact", params={"requestId": request, "mode": "STREAM"}
    )
    assert whole["trained_model_error"] == answer["trained_model_error"]
    address = script.call("GET", f"{script.result}/artifact", params={"requestId": request})
    assert requests.get(address, timeout=120).json() == whole
    assert script.status(f"{script.result}/artifact", requestId="0" * 32) == 404


@pytest.mark.brings(
    "client code",
    "`<project>/results/<request>.tar`",
    "the mastered model, whatever its proof said; unproven keeps that mark",
)
def test_the_mastered_model_is_a_path(
    script: Script, answer: dict[str, Any], prompts: list[str]
) -> None:
    path = f"{script.project}/results/{answer['requestId']}.tar"
    assert answer["result"]["mastered_path"] == path
    output = script.infer(path, prompts[:2])["result"]["output"]
    assert isinstance(output[1][0]["generated_text"][-1]["content"], str)
    other = script.call("POST", "/project", json={"name": "mastered", "unheard": "of"})
    assert len(other["warnings"]) == 1
    pointed = script.call(
        "POST",
        "/project/file/external",
        json={"projectId": other["id"], "filePath": path, "format": "HF_TEXT_GENERATION"},
    )
    (file,) = pointed["fileList"]
    assert file["unproven"] is (answer["result"]["verdict"] != "improved")
    content = requests.get(
        f"{script.up.url}/project/file/{file['id']}",
        params={"projectId": other["id"]},
        headers=script.headers,
        timeout=120,
    ).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {"config.json", "tokenizer.json"} <= set(archive.getnames())
    if file["unproven"]:
        deploy = {"alias": "unproven", "projectId": other["id"], "fileId": file["id"], "now": True}
        url = f"{script.up.url}/v1/deployments"
        refused = requests.post(url, json=deploy, headers=script.headers, timeout=120)
        assert refused.status_code == 422
        assert "insist" in refused.text


@pytest.mark.brings(
    "client code",
    "inference with a file's `filePath`, one stimulus a file",
    "all turns; inference and sensitivity share an engine that stays loaded",
)
def test_inference_and_sensitivity_share_an_engine(
    script: Script, answer: dict[str, Any], prompts: list[str]
) -> None:
    files = [file for file in script.files() if file["part"] != "MASTERED"]
    script.infer(files[-1]["filePath"], prompts[:1])
    began = time.monotonic()
    inferred = [script.infer(file["filePath"], prompts[:4])["result"] for file in files]
    step = {"projectId": script.project, "fileId": files[1]["id"], "scalingFactor": "-1.0"}
    sensitive = script.call(
        "POST",
        "/dynamic_analysis/sensitivity/batch",
        json={**step, "stimulusPaths": prompts[:4], "inferenceConfigJson": CONFIG},
    )["result"]
    seconds = time.monotonic() - began
    for result in inferred:
        assert len(result["output"]) == 4
        first, last = result["output"][0][0]["generated_text"]
        assert first["role"] == "user"
        assert last == {"role": "assistant", "content": result["model_output"][0]}
    assert sensitive["model_output"] == inferred[-1]["model_output"]
    assert sensitive["attenuated_model_output"] != sensitive["model_output"]
    # four calls on an engine that is loaded: loading it once takes longer than all of them
    assert seconds < 4 * 10


@pytest.mark.brings("client code", "static analysis", "signed differences, scores, histograms")
def test_static_analysis_of_a_step(script: Script) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    metadata = script.call("GET", f"/project/{script.project}/metadata")
    assert name in metadata["weightNames"]
    body = {
        "projectId": script.project,
        "fileId": script.files()[1]["id"],
        "comparisonType": "CHOSEN",
        "weightNames": [name],
    }
    result = script.call("POST", "/static_analysis", json=body)["result"]
    rows = result["absolute_weight_difference"][name]
    assert min(rows) < 0 < max(rows)
    assert result["weight_summary_score"] == pytest.approx(result["parameter_scores"][name])
    assert len(result["parameter_histograms"][name]["bin_counts"]) > 0
    assert result["bias_summary_score"] == 0.0


def test_the_console_tells_of_the_search_and_its_end(
    script: Script, answer: dict[str, Any]
) -> None:
    start = f"search {answer['requestId']}: "

    def lines() -> list[str]:
        return [line for line in script.up.lines if line.startswith(start)]

    wait_for(lambda: any("finished" in line for line in lines()), 60)
    assert any("trials" in line for line in lines())
    listed = script.call("GET", "/v1/searches", params={"projectId": script.project})
    assert [search["requestId"] for search in listed] == [answer["requestId"]]


@pytest.mark.brings("client code", "a search that fails", "422 for the caller's mistake, no paths")
def test_a_callers_mistake_is_told_without_the_servers_folders(
    script: Script, prompts: list[str]
) -> None:
    body = {
        "projectId": script.project,
        "scalingFactorLimit": 0.5,
        "stimulusPaths": ["/etc/passwd"],
    }
    for path in ("/v1/searches", "/dynamic_analysis/zto/batch"):
        answer = requests.post(script.up.url + path, json=body, headers=script.headers, timeout=120)
        assert answer.status_code == 422
        assert str(script.up.home) not in answer.text
        assert "memory" not in answer.text
    with Ledger.open(script.up.data / "ledger.db") as ledger:
        assert not ledger.requests.open()
