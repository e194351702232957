"""What models said, in the shape that users' scripts read."""

from __future__ import annotations

from typing import Any

from serve_apps.control_plane.questions import BlendReply, Given, Turns

#: Names of the answers of the first and the second blend that was asked.
_NAMES = (("output", "model_output"), ("attenuated_output", "attenuated_model_output"))


def model_answers(reply: BlendReply) -> dict[str, Any]:
    """The fields of `ztom.wire.analyses.InferenceResult`, and of a second blend where there is one.

    A text becomes a list of one candidate, whose turns are the prompt's and then the model's; a row
    of logits stays one.
    """
    fields: dict[str, Any] = {}
    for (whole, short), given in zip(_NAMES, reply.given, strict=False):
        fields[whole] = [_whole(t, g) for t, g in zip(reply.turns, given, strict=True)]
        fields[short] = list(given)
    return fields


def _whole(turns: Turns, given: Given) -> Any:
    if not isinstance(given, str):
        return list(given)
    spoken = [*turns, ("assistant", given)]
    return [{"generated_text": [{"role": role, "content": text} for role, text in spoken]}]
