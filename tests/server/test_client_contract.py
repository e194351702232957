"""What existing scripts rely on, point by point: the wire alone, with `requests`.

The whole way of a script, with a search on the default engine, is ``tests/outside``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from server_helpers import Server, serving, tar_of
from toys import make_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.engines.config import EngineConfig

QUESTION = [{"role": "user", "content": "What does the function return?"}]
SHORT = json.dumps({"max_new_tokens": 3})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def roots(home: Path) -> Path:
    (home / "roots").mkdir()
    return home / "roots"


@pytest.fixture(scope="module")
def server(home: Path, roots: Path) -> Iterator[Server]:
    config = ServerConfig(
        data=home / "data",
        pointer_roots=(str(roots),),
        poll_s=0.05,
        engine=EngineConfig(name="torch", dtype="float32"),
    )
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def chain(home: Path) -> list[Path]:
    return make_chain(home / "chain")


@pytest.fixture(scope="module")
def project(server: Server, ada: requests.Session, chain: list[Path]) -> dict[str, Any]:
    project = server.project(ada, "contract")
    for path in chain:
        server.upload(ada, project, tar_of(path), fileName=path.name)
    return server.scored(ada, project)


@pytest.fixture(scope="module")
def prompts(roots: Path) -> list[str]:
    """One stimulus a file."""
    paths = []
    for number in range(3):
        path = roots / f"prompt_{number:02d}.json"
        turns = [{"role": "user", "content": f"Explain how to open file {number}."}]
        path.write_text(json.dumps(turns, indent=2))
        paths.append(str(path))
    return paths


def infer(server: Server, session: requests.Session, **body: Any) -> requests.Response:
    body = {"format": "HF_TEXT_GENERATION", "inferenceConfigJson": SHORT, **body}
    url = f"{server.url}/dynamic_analysis/inference/batch"
    return session.post(url, json=body, timeout=120)


def last_words(answer: dict[str, Any]) -> list[str]:
    """What a notebook reads."""
    output = answer["result"]["output"]
    return [output[i][0]["generated_text"][-1]["content"] for i in range(len(output))]


def test_files_have_paths_that_inference_takes(server, ada, project, prompts) -> None:
    files = project["fileList"]
    assert [file["filePath"] for file in files] == [
        f"{project['id']}/{file['fileName']}" for file in files
    ]
    starts = len(server.runner.engines)
    texts = []
    for file in files:
        answer = infer(server, ada, modelPath=file["filePath"], stimulusPaths=prompts)
        assert answer.status_code == 200, answer.text
        texts.append(last_words(answer.json()))
    assert len({tuple(answers) for answers in texts}) == 3
    # one engine for the project's chain: each file is a blend of it
    assert len(server.runner.engines) - starts <= 1


def test_a_file_as_a_blend_answers_as_the_file_alone(
    server, ada, project, prompts, chain, roots
) -> None:
    link = roots / "first"
    if not link.exists():
        chain[0].rename(link)  # a pointer to the same bytes
    file = project["fileList"][0]
    blended = infer(server, ada, modelPath=file["filePath"], stimulusPaths=prompts).json()
    alone = infer(server, ada, modelPath=str(link), stimulusPaths=prompts).json()
    assert last_words(blended) == last_words(alone)


def test_inference_answers_with_all_turns(server, ada, project, prompts) -> None:
    path = project["fileList"][-1]["filePath"]
    answer = infer(server, ada, modelPath=path, stimulusPaths=prompts, wings=2).json()
    result = answer["result"]
    assert {name: answer[name] for name in result} == result
    assert len(result["output"]) == 3
    for number, candidates in enumerate(result["output"]):
        (candidate,) = candidates
        question, reply = candidate["generated_text"]
        assert question == {
            "role": "user",
            "content": f"Explain how to open file {number}.",
        }
        assert reply == {"role": "assistant", "content": result["model_output"][number]}
    assert any("wings" in warning for warning in answer["warnings"])
    assert len(answer["requestId"]) == 32


def test_a_single_stimulus_comes_with_the_form(server, ada, project) -> None:
    path = project["fileList"][-1]["filePath"]
    for name, content in (
        ("prompt.json", json.dumps(QUESTION, indent=1).encode()),
        ("prompt.txt", QUESTION[0]["content"].encode()),
        ("prompt.jsonl", json.dumps({"messages": QUESTION}).encode()),
        ("prompt.json", b"\xef\xbb\xbf" + json.dumps(QUESTION).encode()),
    ):
        answer = ada.post(
            f"{server.url}/dynamic_analysis/inference",
            data={
                "modelPath": path,
                "format": "HF_TEXT_GENERATION",
                "inferenceConfigJson": SHORT,
            },
            files={"file": (name, content)},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["result"]["output"]
        assert output[0]["generated_text"][0] == QUESTION[0], name


def test_several_forms_of_stimuli(server, ada, project, roots, prompts) -> None:
    path = project["fileList"][-1]["filePath"]
    (roots / "two.json").write_text(json.dumps([QUESTION, QUESTION]))
    (roots / "a.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    (roots / "lines.json").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    for names, count in (
        (["two.json"], 2),
        (["a.jsonl", "a.jsonl"], 4),
        (["lines.json"], 2),
        (["prompt_00.json", "a.jsonl"], 3),
    ):
        paths = [str(roots / name) for name in names]
        answer = infer(server, ada, modelPath=path, stimulusPaths=paths, batchSize=1)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["result"]["output"]) == count


@pytest.mark.abuse(41, 42, 43)
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cat.jpg", b"\xff\xd8\xff", "an image is no stimulus"),
        ("odd.json", b'[{"role": "user"}]', "odd.json"),
        ("bad.json", b"[1, ", "bad.json, line 1: not JSON"),
        ("deep.json", b"[" * 4000 + b"]" * 4000, "nested too deeply"),
        ("nul.json", b'["a\0"]', "a NUL character"),
        ("digit.csv", b"1,2\n3,x\n", "digit.csv, line 2"),
        ("tensor.csv", b"1,2\n3,4\n", "a row of numbers is no prompt"),
        ("empty.json", b"", "empty"),
        ("latin.json", b'["\xff"]', "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_stimulus_is_told_by_its_name(
    server, ada, project, roots, name, content, reason
) -> None:
    (roots / name).write_bytes(content)
    path = project["fileList"][-1]["filePath"]
    answer = infer(server, ada, modelPath=path, stimulusPaths=[str(roots / name)])
    assert answer.status_code == 422, answer.text
    assert reason in answer.json()["detail"]
    assert str(server.services.config.data) not in answer.text
    assert "/tmp/ztom-stimuli" not in answer.text


def test_options_of_inference_count_or_are_named(server, ada, project, prompts) -> None:
    path = project["fileList"][-1]["filePath"]

    def texts(**options: Any) -> list[str]:
        config = json.dumps({"max_new_tokens": 6, **options})
        answer = infer(
            server, ada, modelPath=path, stimulusPaths=prompts, inferenceConfigJson=config
        )
        assert answer.status_code == 200, answer.text
        return last_words(answer.json())

    plain = texts()
    assert texts(do_sample=False, temperature=5.0) == plain
    assert texts(do_sample=True, temperature=5.0, seed=3) != plain
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}!{% endfor %}"
    assert texts(chat_template=template) != plain
    assert texts() == plain
    config = {"max_new_tokens": 1, "num_beams": 4}
    answer = infer(
        server, ada, modelPath=path, stimulusPaths=prompts, inferenceConfigJson=config
    ).json()
    assert answer["warnings"] == ["inferenceConfigJson: 'num_beams' is not known and was ignored"]


def test_sensitivity_shares_the_engine_and_the_envelope(server, ada, project, prompts) -> None:
    files = project["fileList"]
    infer(server, ada, modelPath=files[0]["filePath"], stimulusPaths=prompts)
    starts = len(server.runner.engines)
    answer = ada.post(
        f"{server.url}/dynamic_analysis/sensitivity/batch",
        json={
            "projectId": project["id"],
            "fileId": files[1]["id"],
            "scalingFactor": "-1.0",
            "stimulusPaths": prompts,
            "inferenceConfigJson": SHORT,
        },
        timeout=120,
    ).json()
    result = answer["result"]
    assert {name: answer[name] for name in result} == result
    assert result["model_output"] != result["attenuated_model_output"]
    assert [o[0]["generated_text"][-1]["content"] for o in result["attenuated_output"]] == result[
        "attenuated_model_output"
    ]
    assert len(server.runner.engines) == starts


def test_sensitivity_takes_the_flat_list_of_steps_and_groups(server, ada, project, prompts) -> None:
    files = project["fileList"]
    body = {
        "projectId": project["id"],
        "fileId": files[1]["id"],
        "scalingFactors": [-1.0, 0.0] * (len(files) - 1),
        "factorGroups": {"kinds": ["mlp"]},
        "stimulusPaths": prompts,
        "inferenceConfigJson": SHORT,
    }
    url = f"{server.url}/dynamic_analysis/sensitivity/batch"
    answer = ada.post(url, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert result["model_output"] != result["attenuated_model_output"]
    starts = len(server.runner.engines)
    for wrong, said in (
        ({"scalingFactors": [-1.0]}, "one per transition and group"),
        ({"factorGroups": {"patterns": {"gone": ["nothing"]}}}, "no tensor"),
        ({"scalingFactor": 1.0}, "scalingFactor"),
        ({"factorGroups": None}, "belong together"),
    ):
        refused = ada.post(url, json=body | wrong, timeout=60)
        assert refused.status_code == 422, refused.text
        assert said in refused.text
    assert len(server.runner.engines) == starts


@pytest.mark.abuse(77)
def test_a_strangers_paths_are_nothing_to_others(server, ada, project, prompts) -> None:
    eve = server.as_user("mallory")
    path = project["fileList"][0]["filePath"]
    assert infer(server, eve, modelPath=path, stimulusPaths=prompts).status_code == 404
    own = server.project(eve, "own")
    body = {"projectId": own, "filePath": path}
    answer = eve.post(f"{server.url}/project/file/external", json=body, timeout=30)
    assert answer.status_code == 404
    missing = infer(server, ada, modelPath=f"{project['id']}/nothing", stimulusPaths=prompts)
    assert missing.status_code == 404
    late = f"{project['id']}/results/{'0' * 32}.tar"
    assert infer(server, ada, modelPath=late, stimulusPaths=prompts).status_code == 404


@pytest.mark.abuse(32, 33, 34, 106)
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "file:///etc", "../..", "filecache::http://169.254.169.254", "sftp://x/y"],
)
def test_a_refusal_does_not_tell_where_things_are(server, ada, prompts, roots, path) -> None:
    answer = infer(server, ada, modelPath=path, stimulusPaths=prompts)
    assert answer.status_code == 422
    assert str(roots) not in answer.text
    assert "ZTOM_" not in answer.text
