"""The Grafana dashboards draw the metrics that the code has: all of them, and no others but Ray's.

The names are those under which Ray exports them: ``ray_`` before each, ``_total`` after a counter,
``_bucket``, ``_sum`` and ``_count`` after a histogram. The labels are the code's, and ``le``.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
APPS = ROOT / "serve_apps"
DASHBOARDS = {
    path.stem: path for path in sorted((ROOT / "cluster" / "monitoring" / "grafana").glob("*.json"))
}
MODULES = (
    APPS / "gateway" / "metrics.py",
    APPS / "controller" / "metrics.py",
    APPS / "controller" / "record_metrics.py",
)
#: Series of Ray that are drawn, with those of their labels that are used.
OF_RAY = {"ray_node_gpus_utilization": {"instance", "GpuIndex"}, "ray_node_mem_used": {"instance"}}
#: Variables of a dashboard besides the source of its data.
VARIABLES = {"serving": ["alias", "variant"], "search": [], "gate": ["alias"]}

SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
#: Labels that only Prometheus knows.
ADDED = {"Counter": set(), "Gauge": set(), "Histogram": {"le"}}
COLUMNS = 24
SERIES = re.compile(r"\bray_\w+")
SELECTED = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
MATCHED = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPED = re.compile(r"by \(([^)]*)\)")


@dataclass(frozen=True)
class Metric:
    """A metric of the code."""

    kind: str
    name: str
    labels: frozenset[str]

    @property
    def series(self) -> set[str]:
        return {f"ray_{self.name}{suffix}" for suffix in SUFFIXES[self.kind]}


def metrics_of(path: Path) -> list[Metric]:
    """What a module makes of Ray's metrics, from its source: nothing runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tuples = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Tuple | ast.Name)
    }

    def labels(node: ast.expr | None) -> frozenset[str]:
        match node:
            case None:
                return frozenset()
            case ast.Constant(value=str(label)):
                return frozenset({label})
            case ast.Tuple(elts=each):
                return frozenset().union(*map(labels, each))
            case ast.Starred(value=inner):
                return labels(inner)
            case ast.Name(id=name):
                return labels(tuples[name])
        raise AssertionError(f"{path}:{node.lineno}: labels that are not plain")

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kind = node.func.id
            if kind in SUFFIXES:
                (name,) = (each.value for each in node.args if isinstance(each, ast.Constant))
                keys = next((k.value for k in node.keywords if k.arg == "tag_keys"), None)
                found.append(Metric(kind, str(name), labels(keys)))
    return found


@pytest.fixture(scope="module", params=sorted(DASHBOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def read(name: str) -> dict[str, Any]:
    return json.loads(DASHBOARDS[name].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def metrics() -> list[Metric]:
    found = [metric for path in MODULES for metric in metrics_of(path)]
    assert {metric.kind for metric in found} == set(SUFFIXES), "the source was not understood"
    return found


@pytest.fixture(scope="module")
def labels(metrics: list[Metric]) -> dict[str, set[str]]:
    """By exported series."""
    ours = {each: {*m.labels, *ADDED[m.kind]} for m in metrics for each in m.series}
    return ours | OF_RAY


def expressions(board: dict[str, Any]) -> list[str]:
    """Of every panel."""
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def queries(board: dict[str, Any]) -> list[str]:
    """Of every variable that is filled by a query."""
    return [v["definition"] for v in board["templating"]["list"] if v["type"] == "query"]


def test_every_series_of_the_dashboard_is_in_the_code(board, labels) -> None:
    named = {name for text in expressions(board) + queries(board) for name in SERIES.findall(text)}
    assert named
    assert named <= set(labels), "these are exported by nothing"


def test_there_is_a_dashboard_for_each_part() -> None:
    assert set(DASHBOARDS) == set(VARIABLES)
    assert len({read(name)["uid"] for name in DASHBOARDS}) == len(DASHBOARDS)


def test_every_metric_of_the_code_is_on_a_dashboard(metrics) -> None:
    texts = [text for name in DASHBOARDS for text in expressions(read(name))]
    drawn = {name for text in texts for name in SERIES.findall(text)}
    missing = [metric.name for metric in metrics if not metric.series & drawn]
    assert missing == []


def test_every_label_is_one_of_its_series(board, labels) -> None:
    for text in expressions(board):
        named = {name for name, _ in SELECTED.findall(text)}
        for name, selector in SELECTED.findall(text):
            assert set(MATCHED.findall(selector)) <= labels[name], text
        for group in GROUPED.findall(text):
            wanted = set(re.split(r",\s*", group))
            assert all(wanted <= labels[name] for name in named), text
    for text in queries(board):
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", text).groups()
        assert label in labels[name], text


def test_legends_show_what_is_told_apart(board) -> None:
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            *_, last = [
                set(),
                *(set(re.split(r",\s*", g)) for g in GROUPED.findall(target["expr"])),
            ]
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            outermost = set() if target["expr"].startswith("sum(") else last - {"le"}
            assert shown == outermost, target


def test_counters_are_drawn_as_rates_and_histograms_as_quantiles(board, metrics) -> None:
    kinds = {name: metric.kind for metric in metrics for name in metric.series}
    for text in expressions(board):
        for found in SERIES.finditer(text):
            if kinds.get(found[0], "Gauge") != "Gauge":
                assert text[: found.start()].endswith("rate("), text
            if kinds.get(found[0]) == "Histogram":
                assert text.startswith("histogram_quantile("), text
                assert "le" in re.split(r",\s*", GROUPED.search(text)[1]), text


def test_it_can_be_imported_anywhere(board) -> None:
    assert board["id"] is None, "an id is the server's own"
    variables = {each["name"]: each for each in board["templating"]["list"]}
    wanted = next(VARIABLES[name] for name in DASHBOARDS if read(name)["uid"] == board["uid"])
    assert list(variables) == ["datasource", *wanted]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
        "datasource",
        "prometheus",
    )
    own = {"type": "prometheus", "uid": "${datasource}"}
    assert all(variables[name]["datasource"] == own for name in wanted)
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == own, panel["title"]
            assert all(target["datasource"] == own for target in panel["targets"]), panel["title"]
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(board))))
    assert used - {"__rate_interval", "__interval"} == set(wanted)


def test_panels_are_unlike_each_other_and_explained(board) -> None:
    ids = Counter(panel["id"] for panel in board["panels"])
    assert [number for number, count in ids.items() if count > 1] == []
    for panel in board["panels"]:
        assert panel["title"]
        if panel["type"] == "row":
            assert not panel["collapsed"]
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]


def test_no_panel_covers_another(board) -> None:
    def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
        return all(
            one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
            for at, size in (("x", "w"), ("y", "h"))
        )

    places = {panel["title"] + str(panel["id"]): panel["gridPos"] for panel in board["panels"]}
    for place in places.values():
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        assert place["y"] >= 0
        assert place["h"] > 0
    covered = [(a, b) for a, b in combinations(places, 2) if overlap(places[a], places[b])]
    assert covered == []
    area = sum(place["w"] * place["h"] for place in places.values())
    height = max(place["y"] + place["h"] for place in places.values())
    assert area == COLUMNS * height, "there are gaps"
