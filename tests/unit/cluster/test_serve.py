"""Why an application on Serve does not run, out of what Serve says."""

from __future__ import annotations

from types import SimpleNamespace

from cluster.serve import last_error, missing_place, reason_of

TRACEBACK = """The deployment failed to start 1 times in a row. Error:
Traceback (most recent call last):
  File "replica.py", line 1, in start
ztom.errors.StorageError: cannot read
The above exception was the direct cause of the following exception:
ztom.errors.EngineError: no memory
"""
WAITING = (
    "Deployment 'm' in application 'a' has 1 replicas that have taken more than 30s to be "
    'scheduled. Resources required for each replica: {"GPU": 1}, total resources available: '
    '{"CPU": 2}. Use `ray status` for more details.'
)


def overview(message: str, *deployments: str) -> SimpleNamespace:
    statuses = {str(i): SimpleNamespace(message=text) for i, text in enumerate(deployments)}
    return SimpleNamespace(message=message, deployments=statuses)


def test_a_reason_is_the_last_error_or_the_end_of_the_message() -> None:
    assert last_error(TRACEBACK) == "EngineError: no memory"
    assert last_error("  It is being deployed. ") == "It is being deployed."
    assert last_error("x" * 1000) == "x" * 500


def test_an_application_fails_for_what_a_deployment_of_it_fails_for() -> None:
    assert reason_of(overview("it failed", "all is well", TRACEBACK)) == "EngineError: no memory"
    assert reason_of(overview("it failed")) == "it failed"


def test_a_replica_without_a_place_says_what_it_needs() -> None:
    assert missing_place(overview("", "all is well", WAITING)) == (
        'no place for it yet: it needs {"GPU": 1}, free are {"CPU": 2}'
    )
    assert missing_place(overview(WAITING, "all is well")) == ""
