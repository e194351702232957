"""The chart: linted and rendered, where helm is; `make check-deploy` looks at what it makes."""

from __future__ import annotations

import os

import pytest
from deploy_checks import charts
from deploy_checks.tools import program


@pytest.fixture(autouse=True)
def helm() -> None:
    """Helm; without it a test skips, but fails in CI."""
    if program("helm") is None:
        message = "helm is not here: make deploy-tools"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def test_every_values_file_is_linted() -> None:
    assert charts.check_lint() == []


def test_every_values_file_makes_documents() -> None:
    names = {case.name for case in charts.cases()}
    assert {"values.yaml", "values-local.yaml", "values-gke-l4.yaml", "values-gke-t4.yaml"} < names
    assert charts.check_rendered() == []


def test_what_cannot_work_is_refused_with_a_reason() -> None:
    assert charts.check_refused() == []
