"""Which aliases a project may claim: an alias is what clients write, so its name is a promise.

An alias belongs to a project or to the operator from its first deployment on. One that nobody has
is for whoever may deploy; names of well-known models, and others that the operator has reserved,
are for administrators, who give one to a project by deploying to it there.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Final

from ztom.errors import ConfigError

#: Names under which clients expect somebody else's model.
RESERVED_ALIASES: Final = (
    *("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "text-embedding-*", "whisper-*", "dall-e-*"),
    *("claude-*", "gemini-*"),
)


@dataclass(frozen=True, slots=True)
class AliasRules:
    """What the operator has set for new aliases.

    Attributes:
        reserved: Patterns of names that only administrators give.
        prefixed: Whether a project's aliases have to begin with its name.
    """

    reserved: tuple[str, ...] = ()
    prefixed: bool = False

    def require_claimable(self, alias: str, project: str) -> None:
        """Let a project claim an alias that nobody has.

        Args:
            alias: The alias.
            project: Name of the project.

        Raises:
            ConfigError: It may not.
        """
        for pattern in self.reserved:
            if fnmatch.fnmatchcase(alias.lower(), pattern.lower()):
                raise ConfigError(
                    f"the alias {alias} is reserved by the operator of this server",
                    got=f"a name like {pattern}",
                    fix="Choose another one, or ask an administrator to deploy to it first, for "
                    "your project.",
                )
        start = _slug(project)
        if self.prefixed and alias.lower() != start and not alias.lower().startswith(f"{start}-"):
            raise ConfigError(
                f"the alias {alias} is not one of the project {project}",
                expected=f"{start}, or a name that begins with {start}-",
            )


def _slug(name: str) -> str:
    """A project's name as it stands in an alias."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
