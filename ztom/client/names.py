"""Names where ids are taken: projects by name, checkpoints by tag, releases by alias, variants by
name. What several things are called is refused, with their ids.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from ztom.client.connection import Connection
from ztom.errors import ConfigError
from ztom.wire.accounts import User
from ztom.wire.deployments import DeploymentStatus
from ztom.wire.projects import Project
from ztom.wire.releases import Release

Thing = TypeVar("Thing")

_ID = re.compile(r"[0-9a-f]{32}")
_RELEASE_ID = re.compile(r"[0-9a-f]{8}")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_SHOWN = 5


def pick(
    name: str,
    things: Sequence[Thing],
    *,
    what: str,
    id_of: Callable[[Thing], str],
    names_of: Callable[[Thing], Sequence[str | None]],
) -> Thing:
    """The one thing that has this id or this name.

    Args:
        name: An id, or a name.
        things: The things that it may be.
        what: Word for one of them in errors.
        id_of: Gives a thing's id.
        names_of: Gives what a thing is called besides.

    Raises:
        ConfigError: None is called like this, or several are.
    """
    for thing in things:
        if id_of(thing) == name:
            return thing
    matches = [thing for thing in things if name in names_of(thing)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(
            f"several {what}s are called {name}",
            expected=f"the id of one of them: {', '.join(map(id_of, matches[:_SHOWN]))}",
        )
    known = sorted({other for thing in things for other in names_of(thing) if other})
    close = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"there is no {what} {name}",
        expected=_some_of(known) if known else None,
        fix=f"Did you mean {close[0]}?" if close else None,
    )


def _some_of(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


class Names:
    """Ids of what is named, at one server; an id is let through without a question.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def project_id(self, name: str) -> str:
        """Id of a project, by its id or its name."""
        if _ID.fullmatch(name):
            return name
        projects = self._connection.ask_all(Project, "GET", "/project")
        return pick(
            name, projects, what="project", id_of=lambda p: p.id, names_of=lambda p: (p.name,)
        ).id

    def file_id(self, project_id: str, name: str) -> str:
        """Id of a checkpoint of a project, by its id, its tag or its file's name."""
        if _ID.fullmatch(name):
            return name
        project = self._connection.ask(Project, "GET", f"/project/{project_id}")
        files = [project.base_model] if project.base_model is not None else []
        return pick(
            name,
            [*files, *project.files],
            what="checkpoint",
            id_of=lambda file: file.id,
            names_of=lambda file: (file.tag, file.file_name),
        ).id

    def release_id(self, name: str) -> str:
        """Id of a release, by its id or its endpoint's alias, which stands for the newest one."""
        if _RELEASE_ID.fullmatch(name):
            return name
        releases = self._connection.ask_all(Release, "GET", "/v1/releases")
        newest = {release.alias: release for release in reversed(releases)}
        return pick(
            name,
            tuple(newest.values()),
            what="release",
            id_of=lambda release: release.id,
            names_of=lambda release: (release.alias,),
        ).id

    def digest(self, name: str) -> str:
        """Digest of a deployed variant, by it, by its start, by its id or its model's name."""
        if _DIGEST.fullmatch(name):
            return name
        deployments = self._connection.ask_all(DeploymentStatus, "GET", "/v1/deployments")
        digest: str = pick(
            name,
            deployments,
            what="variant",
            id_of=lambda deployment: deployment.id,
            names_of=lambda deployment: (deployment.id.partition("@")[0],),
        ).digest
        return digest

    def user_id(self, name: str) -> str:
        """Id of an account, by its id, its name or its e-mail address; administrators only."""
        if _ID.fullmatch(name):
            return name
        users = self._connection.ask_all(User, "GET", "/api/auth/admin/user")
        return pick(
            name,
            users,
            what="user",
            id_of=lambda user: user.id,
            names_of=lambda user: (user.username, user.email_address),
        ).id
