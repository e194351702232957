"""What a target may be, by metric; a wrong one is found when the suite is read, not at night.

==================  ============================================================================
accuracy, macro_f1  a label: text, one of ``labels`` where the suite lists them
exact_match         text, or a list of texts of which any will do
rouge_l             text
similarity          text
span_f1             the spans to find, perhaps none: a list of ``{"text": ..., "label": ...}``, or
                    a list of texts where there is one kind only; the same form in all items
pass_at_1, user     anything: the function gets it
another name        anything: the metric that was installed gets it
checks              ``answer`` or ``refuse`` where the suite checks refusals (nothing means
                    ``refuse``), else nothing
==================  ============================================================================

Labels have to differ by more than case, punctuation and white space, which do not count when an
answer is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ztom.evaluation.suites.suite import Item, MetricName, SuiteConfig
from ztom.io.text import Place
from ztom.stimuli.prompts import words

CLASS_METRICS = (MetricName.ACCURACY, MetricName.MACRO_F1)
_TEXT_METRICS = (MetricName.ROUGE_L, MetricName.SIMILARITY)


def check_targets(
    items: Sequence[Item], config: SuiteConfig, *, places: Sequence[Place], settings: Place
) -> None:
    """Compare every target with what the suite's metric takes.

    Args:
        items: All of them.
        config: The suite's settings.
        places: Place of each item in its file.
        settings: Place of the settings.

    Raises:
        StimuliError: One does not fit; names file and line.
    """
    forms: set[str] = set()
    for item, place in zip(items, places, strict=True):
        problem = _problem(item.target, config)
        if problem is not None:
            raise place.error(f"the target is not what {config.metric} takes", expected=problem)
        if config.metric is MetricName.SPAN_F1 and item.target:
            forms.add(type(item.target[0]).__name__)
            if len(forms) > 1:
                raise place.error("spans with and without a label in one suite")
    if config.metric in CLASS_METRICS:
        _check_labels(config.labels or sorted({item.target for item in items}), place=settings)


def _problem(target: object, config: SuiteConfig) -> str | None:
    """What was expected instead of ``target``; None when it fits."""
    metric = config.metric
    if metric in CLASS_METRICS:
        return _label_problem(target, config.labels)
    if metric in _TEXT_METRICS:
        return None if _is_text(target) else "text"
    if metric is MetricName.EXACT_MATCH:
        fits = _is_text(target) or (_is_list_of_texts(target) and target != [])
        return None if fits else "text, or a list of texts"
    if metric is MetricName.SPAN_F1:
        return None if _is_spans(target) else 'a list of {"text": ..., "label": ...}, or of texts'
    if metric is MetricName.CHECKS:
        return _probe_problem(target, config)
    return None


def _label_problem(target: object, labels: Sequence[str]) -> str | None:
    if not labels:
        return None if _is_text(target) else "a label, as text"
    return None if target in labels else f"one of the {len(labels)} labels of the suite"


def _probe_problem(target: object, config: SuiteConfig) -> str | None:
    if not any(check.kind == "refusal" for check in config.checks):
        return None if target is None else "none, for no check reads one"
    return None if target in (None, "answer", "refuse") else "answer or refuse"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(text) for text in value)


def _is_spans(value: object) -> bool:
    return _is_list_of_texts(value) or (
        isinstance(value, list)
        and all(
            isinstance(span, dict)
            and set(span) == {"text", "label"}
            and all(_is_text(part) for part in span.values())
            for span in value
        )
    )


def _check_labels(labels: Sequence[str], *, place: Place) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        key = " ".join(words(label))
        if key in seen:
            raise place.error(
                "two labels differ at most in case, punctuation or white space",
                got=f"{seen[key]} and {label}",
            )
        seen[key] = label
