"""Run an engine over stimuli and collect what the error functions asked for.

This is the step between "the blend is loaded" and "score it"; it neither blends nor scores.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ztom.engines.protocol import Engine, GenerationConfig
from ztom.errors import EngineError
from ztom.scoring.protocol import Need
from ztom.stimuli.records import Output, Stimulus


def respond(
    engine: Engine,
    stimuli: Sequence[Stimulus],
    *,
    needs: Collection[Need],
    generation: GenerationConfig,
    labels: Sequence[str] = (),
) -> list[Output]:
    """Ask the engine for everything in ``needs``, one `Output` per stimulus, in order.

    Args:
        engine: Engine that holds the blend to be asked.
        stimuli: Stimuli to ask.
        needs: Union of what the error functions need.
        generation: Settings of generation, used for ``Need.TEXT`` only.
        labels: Class labels, for ``Need.LABEL_LOG_PROBS`` only.

    Raises:
        EngineError: The engine failed, or answered with fewer outputs than stimuli.
    """
    prompts = [stimulus.prompt for stimulus in stimuli]
    texts = engine.generate(prompts, generation) if Need.TEXT in needs else None
    token_log_probs = (
        engine.log_probs(prompts, [stimulus.expected for stimulus in stimuli])
        if Need.TOKEN_LOG_PROBS in needs
        else None
    )
    values = engine.values(prompts) if Need.VALUES in needs else None
    label_log_probs = (
        _label_log_probs(engine, stimuli, labels) if Need.LABEL_LOG_PROBS in needs else None
    )
    for answer in (texts, token_log_probs, values, label_log_probs):
        if answer is not None and len(answer) != len(stimuli):
            raise EngineError(
                f"engine {engine.info.name} lost answers", got=len(answer), expected=len(stimuli)
            )
    return [
        Output(
            text=texts[i].text if texts is not None else None,
            generated_tokens=texts[i].tokens if texts is not None else 0,
            token_log_probs=tuple(token_log_probs[i].tolist()) if token_log_probs else None,
            label_log_probs=tuple(label_log_probs[i].tolist())
            if label_log_probs is not None
            else None,
            values=tuple(values[i].tolist()) if values is not None else None,
        )
        for i in range(len(stimuli))
    ]


def _label_log_probs(
    engine: Engine, stimuli: Sequence[Stimulus], labels: Sequence[str]
) -> list[np.ndarray]:
    """Log-probability of each label: a classifier's log-softmax, or the label's text scored."""
    prompts = [stimulus.prompt for stimulus in stimuli]
    if not labels:
        raise EngineError(
            "label probabilities were asked for without labels",
            fix="Name the class labels in the configuration (labels: [...]).",
        )
    if "values" in engine.info.capabilities:
        logits = engine.values(prompts)
        if logits.shape[1] != len(labels):
            raise EngineError(
                "the classifier's outputs do not match the labels",
                got=f"{logits.shape[1]} outputs",
                expected=f"{len(labels)} labels",
            )
        return list(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    flat = engine.log_probs(
        [prompt for prompt in prompts for _ in labels], [label for _ in prompts for label in labels]
    )
    sums = np.array([row.sum() for row in flat]).reshape(len(prompts), len(labels))
    return list(sums)
