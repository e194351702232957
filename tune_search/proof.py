"""What the holdout says of a search: the trained model's errors beside the blend's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tune_search.holdout import HoldoutScores
from tune_search.payload import SEARCH
from tune_search.preparation import RunInputs
from ztom.scoring.proof import ProofDecision, decide_proof, measure_guardrail
from ztom.search.config import SearchConfig
from ztom.search.result import GroupStep, Proof, StimulusChange
from ztom.statistics.bootstrap import paired_bootstrap
from ztom.stimuli.prompts import prompt_text
from ztom.stimuli.records import Stimulus
from ztom.variants.write import StagedVariant

#: How many of the most changed stimuli a result shows, from each end.
_SHOWN_CHANGES = 12


def build_proof(
    config: SearchConfig,
    inputs: RunInputs,
    before: HoldoutScores,
    after: HoldoutScores,
    staged: StagedVariant | None,
    seconds: dict[str, float],
) -> Proof:
    """Everything of a proof but what was published, and the gate's part.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, with the holdouts.
        before: The trained model's answers and errors.
        after: The blend's answers and errors.
        staged: The variant as written; None where all factors are zero.
        seconds: Seconds by phase.
    """
    decision = _decision(config, inputs, before, after, changed=staged is not None)
    old, new = before.scores[SEARCH], after.scores[SEARCH]
    precision = None if staged is None else staged.precision
    return Proof(
        decision=decision,
        trained_model_error=float(old.aggregate()[0]),
        optimized_model_error=float(new.aggregate()[0]),
        errors_before=tuple(old.per_stimulus.tolist()),
        errors_after=tuple(new.per_stimulus.tolist()),
        changes=tuple(_changes(inputs.holdout, before, after)),
        dtype=config.engine.dtype,
        realised=None if precision is None else precision.overall.realised,
        steps=()
        if precision is None
        else tuple(
            GroupStep(group=g.group, realised=g.realised, changed=g.changed)
            for g in precision.groups
        ),
        warnings=() if precision is None else precision.warnings,
        seconds=seconds,
    )


def _decision(
    config: SearchConfig,
    inputs: RunInputs,
    before: HoldoutScores,
    after: HoldoutScores,
    *,
    changed: bool,
) -> ProofDecision:
    improvement = paired_bootstrap(
        before.scores[SEARCH],
        after.scores[SEARCH],
        groups=[stimulus.group for stimulus in inputs.holdout],
        seed=config.seed,
    )
    guardrails = [
        measure_guardrail(
            guardrail.name,
            before.scores[guardrail.name],
            after.scores[guardrail.name],
            groups=[s.group for s in inputs.guardrail_holdouts[guardrail.name]],
            allowed_increase=guardrail.max_increase,
            seed=config.seed,
        )
        for guardrail in config.guardrails
    ]
    return decide_proof(improvement, guardrails, factors_are_zero=not changed)


def _changes(
    holdout: Sequence[Stimulus], before: HoldoutScores, after: HoldoutScores
) -> Iterator[StimulusChange]:
    old, new = before.scores[SEARCH].per_stimulus, after.scores[SEARCH].per_stimulus
    order = np.argsort(new - old, kind="stable").tolist()
    shown = (
        order
        if len(order) <= 2 * _SHOWN_CHANGES
        else order[:_SHOWN_CHANGES] + order[-_SHOWN_CHANGES:]
    )
    for i in shown:
        yield StimulusChange(
            id=holdout[i].id,
            prompt=prompt_text(holdout[i].prompt),
            expected=holdout[i].expected,
            before=before.answers.outputs[SEARCH][i].text,
            after=after.answers.outputs[SEARCH][i].text,
            error_before=float(old[i]),
            error_after=float(new[i]),
        )
