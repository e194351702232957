"""Which of vLLM's parsers reads the calls of tools out of a model's answers.

The chat template shows in which form the model was taught to call: what it writes around a call is
in it. Where a template shows none of the known forms, there is no parser.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What stands in a template, and the parser of that form; the first that fits counts.
_FORMS = (
    ("<function=", "qwen3_coder"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<tool_call>", "hermes"),
)


def named_parser(option: str, template: object) -> str | None:
    """The parser to take.

    Args:
        option: Name of a parser; ``auto`` tells it from the template, ``none`` is without.
        template: Chat template in Jinja, or several by name; None without one.
    """
    if option == "none" or not template:
        return None
    if option != "auto":
        return option
    sources = template.values() if isinstance(template, Mapping) else [template]
    text = "\n".join(str(source) for source in sources)
    return next((parser for form, parser in _FORMS if form in text), None)
