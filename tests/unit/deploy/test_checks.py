"""The checks of what is deployed see what they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deploy_checks import custom_resources as resources
from deploy_checks import entries, images, machines, pins, rules, schemas

DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ("ztom-cpu", "neither tag nor digest"),
        ("ztom-cpu:latest", "latest"),
        ("localhost:5000/ztom-cpu", "neither tag nor digest"),
        ("quay.io/kuberay/collector:nightly", "nightly"),
        ("ztom-cpu:blue", "no version"),
        ("ztom-cpu@sha256:abc", "no digest"),
        ("ztom-cpu@sha256:" + "0" * 64, "stands for a digest"),
        ("ztom-cpu@sha256:" + "0123456789abcdef" * 4, "stands for a digest"),
        ("ztom-cpu@sha256:" + "deadbeef" * 8, "stands for a digest"),
    ],
)
def test_an_image_of_no_version_is_seen(image: str, word: str) -> None:
    assert word in str(pins.image_problem(image))


@pytest.mark.parametrize("image", ["localhost:5000/ztom-cpu:0.1.0", f"ztom@{DIGEST}", "a/b:v1.7.0"])
def test_an_image_of_a_version_is_none(image: str) -> None:
    assert pins.image_problem(image) is None


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": True, "default": 80},
                "parts": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"size": {"type": "integer"}}},
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "odd": {
                    "type": "integer",
                    "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "never changes"}
                    ],
                },
            },
        },
    },
}


def problems(**spec: Any) -> list[str]:
    document = {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a"}, "spec": spec}
    return list(resources.problems(document, SCHEMA))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"name": "a", "nmae": "b"}, "nmae"),
        ({}, "name"),
        ({"name": None}, "name"),
        ({"name": "a", "port": 1.5}, "port"),
        ({"name": "a", "parts": [{"size": 1}, {"sice": 1}]}, "sice"),
        ({"name": "a", "parts": [{"size": "1"}]}, "parts.0.size"),
    ],
)
def test_what_the_api_server_refuses_is_seen(spec: dict[str, Any], word: str) -> None:
    assert any(word in problem for problem in problems(**spec))


def test_what_the_api_server_takes_is_taken() -> None:
    assert problems(name="a", port="http", parts=[{"size": 1}, {}], free={"x": 1}, odd=3) == []
    document = {"spec": {"name": "a", "port": None}}
    assert resources.filled(resources.pruned(document, SCHEMA), SCHEMA)["spec"]["port"] == 80


def test_a_field_that_is_not_listed_is_seen() -> None:
    used = schemas._leaves({"a": [{"b": 1}], "matchLabels": {"x": "y"}, "c": {"d": {}}}, "")
    assert used == ["a[].b", "matchLabels.*", "c.d"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("FROM ubuntu:24.04", "BASE"),
        ("USER root", "1000"),
        ("RUN apt-get install -y gcc libc6-dev", "compiler"),
        ("RUN apt-get install -y build-essential", "compiler"),
    ],
)
def test_a_containerfile_that_breaks_a_rule_is_seen(line: str, word: str) -> None:
    text = (images.IMAGE / "Containerfile").read_text(encoding="utf-8")
    assert images.containerfile_problems(text) == []
    assert any(word in problem for problem in images.containerfile_problems(f"{text}{line}\n"))


def test_a_lock_that_is_made_up_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "cpu.txt"
    requirements.write_text("ray==2.60.0\ntorch==2.13.0\n")
    text = f"ray==2.60.0 --hash={DIGEST}\ntorch==2.12.0 --hash=sha256:{'0' * 64}\n"
    found = "\n".join(images.hash_problems(text, requirements))
    assert "torch==2.13.0 has no hash" in found
    assert "has not torch==2.12.0" in found
    assert "stands for a digest" in found
    monkeypatch.setattr(images, "IMAGE", tmp_path)
    lock = {"bases": {"cpu": "python:3.12", "gpu": f"python:3.12@sha256:{'a' * 64}"}}
    found = "\n".join(images.lock_problems(lock))
    assert "cpu: the base python:3.12 has no digest" in found
    assert "gpu: python:3.12@" in found
    assert "cpu.hashes.txt is missing" in found


@pytest.mark.parametrize("line", ["ray>=2.60", "-e .[gpu]", "ray", "ray==2.60.0 ; python_version"])
def test_a_requirement_of_no_version_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "gpu.txt").write_text(f"# versions\n{line}\n")
    with pytest.raises(ValueError, match="no exact version"):
        images.pinned(tmp_path / "gpu.txt")


def test_a_node_that_lacks_a_setting_is_seen() -> None:
    spec = {"authOptions": {"mode": "disabled"}}
    found = "\n".join(rules.environment_problems(spec, {"RAY_SERVE_ENABLE_HA_PROXY": "0"}))
    assert "authOptions.mode is disabled" in found
    assert "RAY_SERVE_ENABLE_HA_PROXY is '0'" in found
    assert "RAY_SERVE_HAPROXY_BINARY_PATH is not set" in found


@pytest.mark.parametrize(
    "line",
    [
        "python -m tune_search search.yaml --resumed",
        "python -m cluster.drain",
        "python -m cluster.health",
        "ztom search search.yaml",
    ],
)
def test_a_command_that_its_parser_refuses_is_seen(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entries.command_problem(line.split()) is not None


def test_arguments_that_the_server_refuses_are_seen() -> None:
    assert "no serve_apps.server.app:bild" in str(
        entries.builder_problem("serve_apps.server.app:bild", {})
    )
    found = entries.builder_problem("serve_apps.server.app:build", {"http_replica": 2})
    assert "http_replica" in str(found)


def test_a_misspelt_key_of_serve_is_seen() -> None:
    from ray.serve.schema import ServeDeploySchema

    application = {"name": "a", "import_path": "a:b", "route_prefx": "/"}
    content = {"applications": [application], "http_option": {}}
    found = entries.unknown_keys(content, ServeDeploySchema.model_validate(content), "serve")
    assert found == [
        "serve.http_option is not known",
        "serve.applications.route_prefx is not known",
    ]


def test_an_exception_without_a_reason_is_seen(tmp_path: Path) -> None:
    path = tmp_path / ".checkov.yaml"
    path.write_text("skip-check:\n  - CKV_GCP_6 # known\n  - CKV_GCP_7\n")
    assert machines.unexplained(path) == [".checkov.yaml: CKV_GCP_7 is left out without a reason"]


def test_a_machine_whose_gpus_ray_does_not_know_is_seen() -> None:
    card = {"acceleratorType": "nvidia-l4", "acceleratorCount": 2}
    config = {
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 4}, "node_config": {}},
            "l4": {"resources": {"GPU": 1}, "node_config": {"guestAccelerators": [card]}},
        },
    }
    found = "\n".join(machines.node_type_problems(config))
    assert "the head has processors" in found
    assert "l4 has 2 GPUs" in found
    assert "l4 has no label pool" in found
