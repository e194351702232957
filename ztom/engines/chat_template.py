"""Does a chat template come to an end? Tried out in a process that can be killed.

A template is a program that comes with a checkpoint: one that loops, or that fills the memory,
would hang the engine at the first prompt. Here it renders a short conversation first, in a process
of its own with a deadline and a limit on memory. What it renders, and other mistakes in it, are
not looked at: the tokenizer's own rendering reports those.
"""

from __future__ import annotations

import subprocess
import sys

from ztom.errors import CapabilityError, EngineError

_DEADLINE_S = 10.0
_MEMORY_BYTES = 2 * 2**30
#: The environment is that of transformers' `apply_chat_template`, without its additions.
_RENDER = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
from jinja2.sandbox import ImmutableSandboxedEnvironment
environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
try:
    environment.from_string(sys.stdin.read()).render(
        messages=[{{"role": "user", "content": "Hello"}}],
        add_generation_prompt=True, bos_token="<s>", eos_token="</s>",
    )
except MemoryError:
    sys.exit("memory")
except Exception:
    pass
"""


def check_chat_template(template: str, *, deadline_s: float = _DEADLINE_S) -> None:
    """Refuse a template that does not end, or that fills the memory.

    Args:
        template: Template in Jinja.
        deadline_s: Seconds for a short conversation, the start of the process included.

    Raises:
        EngineError: It was still rendering at the deadline, or used more than 2 GiB.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _RENDER],
            input=template,
            encoding="utf-8",
            capture_output=True,
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"one turn was not rendered in {deadline_s:g} s") from error
    if done.returncode:
        raise _refused(f"rendering one turn ended with {done.stderr.strip()[-100:] or 'a signal'}")


def _refused(got: str) -> EngineError:
    return CapabilityError(
        "the chat template does not come to an end",
        got=got,
        fix="Take the template from the checkpoint that the tokenizer came with.",
    )
