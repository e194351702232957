"""The keys of answers, which users' scripts read, and how requests are read."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from ztom.ledger.accounts import ApiKeyRecord, Scope, UserRecord
from ztom.ledger.checkpoints import CheckpointRecord, FileStatus, Part, Storage
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.ledger.projects import MemberRecord, ProjectRecord, Role
from ztom.ledger.records import TrialOutcome, TrialRecord, TrialStatus
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus
from ztom.ledger.rollouts import RolloutRecord
from ztom.ledger.verdicts import VerdictRecord
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import Placement, Route, RoutingRule, RoutingTable
from ztom.rollout.state import ReleaseState, ReleaseStatus
from ztom.wire.accounts import ApiKey, ApiKeySecret, NewKey, User
from ztom.wire.analyses import Edit, InferenceAnswer, Metatune, SensitivityAnswer
from ztom.wire.base import WireAnswer
from ztom.wire.deployments import Deploy, DeploymentRole, DeploymentStatus
from ztom.wire.endpoints import Endpoint, TrafficShares
from ztom.wire.files import Pointer, ProjectFile
from ztom.wire.projects import MemberPatch, ParameterNames, Project, ProjectMember, ProjectMetadata
from ztom.wire.releases import Release
from ztom.wire.searches import (
    QueuedSearch,
    RequestAnswer,
    SearchAnswer,
    SearchProgress,
    SearchStatus,
    Trial,
)
from ztom.wire.verdicts import VerdictOnRecord, VerdictSummary

ONE, TWO = "1" * 64, "2" * 64


def sent(answer: WireAnswer) -> dict[str, Any]:
    """An answer as it arrives; a client reads it back as it was."""
    content = json.loads(answer.to_json())
    assert type(answer).parse(content) == answer
    return content


def user(**changes: Any) -> UserRecord:
    values = dict(id="u", username="ada", email="a@b", first_name="A", last_name="L")
    values |= dict(is_admin=False, enabled=True, session=0, created="now")
    return UserRecord(**{**values, **changes})


def checkpoint(id: str, part: Part, **changes: Any) -> CheckpointRecord:
    values = dict(project_id="p", position=0, file_name=id, tag=None, address="/secret")
    values |= dict(format="HF_TEXT_GENERATION", storage=Storage.MANAGED, nbytes=3, digest=None)
    values |= dict(weight_score=None, bias_score=None, status=FileStatus.PENDING, message=None)
    return CheckpointRecord(id=id, part=part, created="now", **{**values, **changes})


def project(*files: CheckpointRecord) -> ProjectRecord:
    return ProjectRecord("p", "support", "", "HF_TEXT_GENERATION", "now", files)


def request(**changes: Any) -> RequestRecord:
    values = dict(id="r", kind=RequestKind.SEARCH, user_id="u", project_id="p", study_id=None)
    values |= dict(status=RequestStatus.QUEUED, parameters={}, job="secret", attempts=0)
    values |= dict(reason=None, result=None, artifact=None, checkpoint_id=None)
    return RequestRecord(created="now", ended=None, **{**values, **changes})


REQUEST_KEYS = [
    *("requestId", "projectId", "kind", "status", "reason", "studyId", "checkpointId"),
    *("createdAt", "endedAt", "hasArtifact", "result"),
]


def test_a_user_and_no_secret_of_theirs() -> None:
    assert sent(User.of(user())) == {
        "id": "u",
        "username": "ada",
        "emailAddress": "a@b",
        "firstName": "A",
        "lastName": "L",
        "roles": ["USER"],
        "enabled": True,
        "createdAt": "now",
    }
    assert sent(User.of(user(is_admin=True)))["roles"] == ["ADMIN", "USER"]


def test_an_api_key_shows_its_secret_once() -> None:
    record = ApiKeyRecord("k", "u", "ci", (Scope.READ, Scope.INFER), None, "now", None)
    shown = sent(ApiKey.of(record))
    assert list(shown) == [
        *("id", "name", "scopes", "projectId", "requestsPerMinute", "tokensPerMinute"),
        *("createdAt", "revokedAt"),
    ]
    assert shown["scopes"] == ["read", "infer"]
    assert sent(ApiKeySecret.issued(record, "ztom_x")) == {**shown, "key": "ztom_x"}
    assert set(NewKey(name="n").scopes) == set(Scope)


def test_a_project_lists_its_files_without_the_base_model() -> None:
    base, first = checkpoint("b", Part.BASE), checkpoint("f", Part.ITERATION, tag="t")
    shown = sent(Project.of(project(base, first)))
    assert list(shown) == [
        *("id", "name", "description", "format", "createdAt", "baseModel", "fileList"),
    ]
    assert (shown["baseModel"]["id"], [file["id"] for file in shown["fileList"]]) == ("b", ["f"])
    assert sent(Project.of(project(base, first), warnings=["w"])) == {**shown, "warnings": ["w"]}
    assert sent(ProjectFile.of(first)) == {
        "id": "f",
        "fileName": "f",
        "filePath": "p/f",
        "tag": "t",
        "format": "HF_TEXT_GENERATION",
        "totalWeightContribution": None,
        "totalBiasContribution": None,
        "part": "ITERATION",
        "storage": "MANAGED",
        "size": 3,
        "sha256": None,
        "status": "PENDING",
        "message": None,
        "unproven": False,
        "createdAt": "now",
    }


def test_a_file_has_a_path_that_no_other_has() -> None:
    twins = [checkpoint(id, Part.ITERATION, file_name="same") for id in ("a", "b")]
    elsewhere = checkpoint("c", Part.ITERATION, storage=Storage.POINTER, address="gs://b/c")
    shown = sent(Project.of(project(*twins, elsewhere)))["fileList"]
    assert [file["filePath"] for file in shown] == ["p/a", "p/b", "gs://b/c"]


def test_nothing_but_the_first_file_is_null_once_all_were_looked_at() -> None:
    """Scripts wait for that; what has no contribution because it cannot be used has 0."""
    looked = dict(status=FileStatus.INVALID, message="NaN")
    files = [
        checkpoint("a", Part.ITERATION, status=FileStatus.VALID, digest=ONE),
        checkpoint("b", Part.ITERATION, **looked),
        checkpoint("c", Part.ITERATION),
        checkpoint("d", Part.ITERATION, weight_score=0.25, bias_score=0.0, status=FileStatus.VALID),
    ]
    shown = sent(Project.of(project(*files)))["fileList"]
    assert [file["totalWeightContribution"] for file in shown] == [None, 0.0, None, 0.25]
    assert [file["totalBiasContribution"] for file in shown] == [None, 0.0, None, 0.0]
    assert (shown[1]["status"], shown[1]["message"]) == ("INVALID", "NaN")
    base = checkpoint("z", Part.BASE, **looked)
    based = sent(Project.of(project(base, *files)))
    assert based["baseModel"]["totalWeightContribution"] is None
    assert based["fileList"][0]["totalWeightContribution"] == 0.0


def test_metadata_names_the_parameters() -> None:
    base = checkpoint("b", Part.BASE)
    known = checkpoint("f", Part.ITERATION, digest=ONE)
    names = ParameterNames(("m",), ("m.weight",), ("m.bias",))
    metadata = ProjectMetadata.of(project(base, known), known, length=2, names=names)
    assert sent(metadata) == {
        "format": "HF_TEXT_GENERATION",
        "checkpoints": 2,
        "transitions": 1,
        "latest": {"id": "f", "fileName": "f", "sha256": ONE},
        "layerNames": ["m"],
        "weightNames": ["m.weight"],
        "biasNames": ["m.bias"],
    }


@pytest.mark.parametrize("role", list(Role))
def test_a_members_permissions_are_their_roles(role: Role) -> None:
    shown = sent(ProjectMember.of(MemberRecord("u", "a@b", "ada", role)))
    assert list(shown) == ["id", "emailAddress", "username", "role", "permissions"]
    assert shown["role"] == role.upper()
    assert MemberPatch(permissions=tuple(shown["permissions"])).role == role.upper()
    assert MemberPatch(permissions=(role,)).role == role.upper()
    with pytest.raises(ValidationError, match="permissions are"):
        MemberPatch(permissions=("FLY",))


def test_requests_and_searches() -> None:
    shown = sent(RequestAnswer.of(request()))
    assert list(shown) == REQUEST_KEYS
    assert (shown["kind"], shown["status"], shown["hasArtifact"]) == ("search", "queued", False)
    assert sent(QueuedSearch.queued(request(), [])) == {**shown, "warnings": []}
    progress = SearchProgress(trials=1, max_evaluations=2, best_error=0.5, best_factors=(1.0,))
    assert sent(SearchStatus.at(request(), progress)) == {
        **shown,
        "progress": {
            "trials": 1,
            "maxEvaluations": 2,
            "bestError": 0.5,
            "bestFactors": [1.0],
        },
    }


def test_a_search_that_is_over_has_its_fields_at_the_top() -> None:
    result = {
        "trained_model_error": 1.0,
        "optimized_model_error": 0.5,
        "optimized_scaling_factors": [0.1],
        "number_of_inferences": 3,
        "verdict": None,
        "noise_floor": None,
        "stop_reason": "budget",
        "advice": None,
        "best_existing": None,
        "existing": [],
        "gradient_evaluations": 0,
        "baseline_inferences": 0,
        "partial_evaluations": 0,
        "step_gains": [],
        "step_warnings": [],
        "holdout": None,
        "variant_digest": None,
        "mastered_path": "p/results/r.tar",
        "unproven": True,
        "added_later": {"by": "a newer search"},
    }
    answer = RequestAnswer.of(request(result=result, status=RequestStatus.FINISHED))
    ids = {"request_id": "r", "requestId": "r", "checkpoint_id": None}
    everything = {**result, **ids, "result": result}
    assert json.loads(SearchAnswer.of(answer).to_json()) == everything
    warned = json.loads(SearchAnswer.of(answer, warnings=["w"]).to_json())
    assert warned == {**everything, "warnings": ["w"]}
    with pytest.raises(ValidationError):
        SearchAnswer.of(RequestAnswer.of(request()))


def test_a_trial() -> None:
    outcome = TrialOutcome(error=0.5, seconds={"total": 2.0})
    record = TrialRecord(
        study_id=1,
        number=1,
        kind="search",
        factors=(0.1,),
        status=TrialStatus.FINISHED,
        asked=0,
        told=1,
        outcome=outcome,
    )
    assert sent(Trial.of(record)) == {
        "number": 1,
        "kind": "search",
        "status": "finished",
        "factors": [0.1],
        "error": 0.5,
        "reason": None,
        "seconds": 2.0,
    }


def test_texts_of_models() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    result = {"output": [[{"generated_text": turns}]], "model_output": ["a"]}
    one = InferenceAnswer.model_validate({**result, "result": result, "requestId": "r"})
    assert sent(one) == {**result, "requestId": "r", "result": result}
    both = {**result, "attenuated_output": [[0.5, 1.0]], "attenuated_model_output": [[0.5, 1.0]]}
    answer = SensitivityAnswer.model_validate({**both, "result": both, "requestId": "r"})
    assert sent(answer) == {**both, "requestId": "r", "result": both}


def test_verdicts() -> None:
    record = VerdictRecord(1, ONE, TWO, None, "fail", None, "local:x", "now")
    shown = sent(VerdictSummary.of(record))
    assert list(shown) == [
        *("sha256", "candidate", "champion", "outcome", "projectId", "actor", "createdAt"),
        *("signedBy", "publicKey"),
    ]
    assert sent(VerdictOnRecord.with_document(record, {"any": None})) == {
        **shown,
        "verdict": {"any": None},
    }


def test_an_endpoint_names_variants_by_their_ids() -> None:
    placements = {
        digest: Placement(name=name, app="a", deployment="d", folder="/secret")
        for digest, name in ((ONE, "one"), (TWO, "two"))
    }
    rule = RoutingRule(header="x-customer", value="acme", variant=TWO)
    route = Route(stable=ONE, canary=TWO, canary_percent=5, rules=(rule,), release="9c3e51d7")
    table = RoutingTable(routes={"support": route}, placements=placements)
    assert sent(Endpoint.of("support", 7, table)) == {
        "alias": "support",
        "version": 7,
        "stable": f"one@{ONE[:12]}",
        "canary": f"two@{TWO[:12]}",
        "canaryPercent": 5.0,
        "shadow": None,
        "shadowPercent": 0.0,
        "previous": None,
        "rules": [
            {"header": "x-customer", "value": "acme", "key": None, "variant": f"two@{TWO[:12]}"}
        ],
        "release": "9c3e51d7",
    }


def test_a_deployment_shows_the_options_that_are_not_as_usual() -> None:
    record = DeploymentRecord(
        digest=ONE,
        name="one",
        address="/models/one",
        base=None,
        options=DeployOptions(max_replicas=2),
        intent=Intent(alias="support", now=True),
        kept=None,
        project_id=None,
        state=DeploymentState.READY,
        reason=None,
        insisted=False,
        actor="local:x",
        created="now",
    )
    shown = sent(
        DeploymentStatus.of(record, "models/one", [DeploymentRole(alias="support", role="stable")])
    )
    assert list(shown) == [
        *("id", "digest", "name", "path", "base", "options", "intent", "projectId", "state"),
        *("reason", "insisted", "signedBy", "roles", "actor", "createdAt"),
    ]
    assert (shown["options"], shown["state"]) == ({"max_replicas": 2}, "ready")
    assert shown["roles"] == [{"alias": "support", "role": "stable"}]
    assert list(shown["intent"]) == ["alias", "now", "canary", "shadow", "rule", "plan"]


def test_a_release_has_a_row_for_each_step() -> None:
    plan = parse_plan({"steps": [{"shadow": 100}, {"canary": 100}]})
    record = RolloutRecord(
        id="9c3e51d7",
        alias="support",
        candidate=TWO,
        stable=ONE,
        plan=plan,
        state=ReleaseState(),
        status=ReleaseStatus.RUNNING,
        command=None,
        actor="local:x",
        created="now",
        ended=None,
    )
    shown = sent(Release.of(record))
    assert list(shown) == [
        *("id", "alias", "candidate", "stable", "status", "command", "plan", "state", "steps"),
        *("callers", "actor", "createdAt", "endedAt"),
    ]
    assert shown["callers"].startswith("too little traffic before it is on record")
    assert shown["plan"] == plan.model_dump(mode="json")
    assert shown["state"] == ReleaseState().model_dump(mode="json")
    assert [step["kind"] for step in shown["steps"]] == ["shadow", "canary"]


def test_what_a_request_leaves_open_is_not_sent() -> None:
    assert Deploy.model_construct(alias="a", canary=0.0, now=False, name=None).body() == {
        "alias": "a",
        "canary": 0.0,
        "now": False,
    }
    assert TrafficShares().body() == {}


def test_forms_send_lists_as_text_and_more_than_is_known() -> None:
    ids = ["a" * 32, "b" * 32]
    edit = Edit.model_validate({"projectId": "c" * 32, "fileIds": ", ".join(ids), "odd": 1})
    assert (list(edit.file_ids), edit.warnings) == (ids, ["'odd' is not known and was ignored"])
    tuned = {"projectId": "c" * 32, "fileIds": ids, "scalingFactors": "0.5,-1"}
    assert Metatune.model_validate(tuned).scaling_factors == (0.5, -1.0)
    with pytest.raises(ValidationError):
        Metatune.model_validate({**tuned, "scalingFactors": "nan,0"})
    pointer = {"projectId": "c" * 32, "filePath": "/models/a"}
    assert Pointer.model_validate({**pointer, "baseModel": True}).base_model is True
    assert Pointer.model_validate({**pointer, "baseModel": "/models/b"}).base_model == "/models/b"
    with pytest.raises(ValidationError):
        NewKey.model_validate({"name": "n", "odd": 1})


def test_what_servers_and_clients_share_needs_no_database_and_no_server() -> None:
    code = (
        "import importlib, pkgutil, sys, ztom.wire\n"
        "for module in pkgutil.iter_modules(ztom.wire.__path__):\n"
        "    importlib.import_module(f'ztom.wire.{module.name}')\n"
        "heavy = {'ray', 'fastapi', 'sqlalchemy', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
