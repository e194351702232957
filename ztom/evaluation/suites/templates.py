"""Makes the prompt that a model is given from an item.

A template is Jinja, cut down to what a prompt needs: text, the item's fields, ``if``, and a few
filters. Loops, calls and arithmetic are refused, so that whatever somebody writes there ends, and
the prompt is about as long as template and input together. ``target`` is refused as well: a
template with it would tell the model the answer.
"""

from __future__ import annotations

from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ztom.errors import EvaluationError
from ztom.evaluation.suites.suite import Item, Turn
from ztom.stimuli.records import Message

FIELDS = ("input", "id", "slice", "cluster_id", "source_ts", "must_pass")
FILTERS = ("trim", "upper", "lower", "capitalize", "title", "default", "length")
_NODES = (
    (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter)
    + (nodes.If, nodes.CondExpr, nodes.Test, nodes.Compare, nodes.Operand)
    + (nodes.And, nodes.Or, nodes.Not, nodes.Concat)
)
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


class PromptTemplate:
    """A template that was checked.

    Args:
        source: Source of the template in Jinja.

    Raises:
        EvaluationError: It is not Jinja, or holds something that is refused.
    """

    def __init__(self, source: str) -> None:
        try:
            tree = _ENVIRONMENT.parse(source)
            _check(tree)
            self._template = _ENVIRONMENT.from_string(tree)
        except TemplateSyntaxError as error:
            raise EvaluationError(
                f"the template is wrong in its line {error.lineno}", reason=error.message
            ) from None
        except RecursionError:
            raise EvaluationError("the template is nested too deeply") from None

    def render(self, item: Item) -> str | tuple[Message, ...]:
        """The prompt: text, or the turns with the template applied to the last one.

        Raises:
            EvaluationError: The template fails on this item; names the item.
        """
        if isinstance(item.input, str):
            return self._text(item, item.input)
        *before, last = item.input
        question = Turn(role=last.role, content=self._text(item, last.content))
        return tuple(Message(turn.role, turn.content) for turn in (*before, question))

    def _text(self, item: Item, text: str) -> str:
        fields: dict[str, Any] = {name: getattr(item, name) for name in FIELDS} | {"input": text}
        try:
            prompt = self._template.render(fields)
        except Exception as error:  # a program of the user's: it may raise anything
            raise EvaluationError(
                f"the template fails on item {item.id}", got=type(error).__name__
            ) from error
        if not prompt.strip():
            raise EvaluationError(f"the template makes an empty prompt of item {item.id}")
        return prompt


def _check(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.Node):
        named = node.name if isinstance(node, nodes.Filter) else ""
        if not isinstance(node, _NODES) or (named and named not in FILTERS):
            raise EvaluationError(
                f"the template's line {node.lineno} holds something that is refused",
                got=f"{type(node).__name__} {named}".strip(),
                expected=f"text, fields of the item, if, and the filters {', '.join(FILTERS)}",
            )
    if unknown := sorted(meta.find_undeclared_variables(tree) - set(FIELDS)):
        raise EvaluationError(
            "the template names something that a prompt has not",
            got=", ".join(unknown),
            expected=f"of {', '.join(FIELDS)}",
        )
