"""A typed client of the server's HTTP API, for notebooks and CI.

```python
from ztom.client import Client

with Client.login("http://127.0.0.1:8000", "ada", password) as client:
    project = client.create_project("support")
    for folder in ("base", "epoch-1", "epoch-2"):
        client.add_checkpoint(project.id, folder)
    answer = client.search(project.id, stimuli="traffic.jsonl", limit=0.5, progress=True)
    client.download(project.id, answer.checkpoint_id, "mastered")
```
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ztom.client.connection import Connection
from ztom.client.searches import SearchCalls
from ztom.client.transfer import Sending, save_checkpoint
from ztom.errors import ConfigError
from ztom.io.places import require_local
from ztom.wire.accounts import Login, User
from ztom.wire.analyses import Edit, Metatune
from ztom.wire.factor_groups import rule_of
from ztom.wire.fields import FORMAT
from ztom.wire.files import (
    CheckpointUpload,
    FileDeletion,
    Pointer,
)
from ztom.wire.limits import Limit
from ztom.wire.projects import NewProject, Project, ProjectDeletion, ProjectPatch

if TYPE_CHECKING:
    from ztom.client.accounts import AccountCalls
    from ztom.client.analyses import AnalysisCalls
    from ztom.client.endpoints import EndpointCalls
    from ztom.client.verdicts import VerdictCalls


class Client(SearchCalls):
    """Speaks to one server as one user; use as a context manager, or call `close`.

    Args:
        server: Base address, as in ``http://127.0.0.1:8000``; ``ZTOM_SERVER`` when None.
        key: API key or token; ``ZTOM_API_KEY`` when None.

    A project is named by its id or its name, a checkpoint by its id, its tag or its file's name;
    what several are called is refused (`ConfigError`), with their ids.

    Every method raises `ServerError` when the server refuses or cannot be reached. What a method
    sends is not judged here: a newer server may take more.
    """

    def __init__(self, server: str | None = None, *, key: str | None = None) -> None:
        server = server or os.environ.get("ZTOM_SERVER")
        key = key or os.environ.get("ZTOM_API_KEY")
        if not server:
            raise ConfigError("no server is named", fix="Give its address, or set ZTOM_SERVER.")
        self._connection = Connection(server, key)

    @functools.cached_property
    def accounts(self) -> AccountCalls:
        """Users, members of projects, API keys."""
        from ztom.client.accounts import AccountCalls

        return AccountCalls(self._connection)

    @functools.cached_property
    def analyses(self) -> AnalysisCalls:
        """Checkpoints compared, and asked."""
        from ztom.client.analyses import AnalysisCalls

        return AnalysisCalls(self._connection)

    @functools.cached_property
    def endpoints(self) -> EndpointCalls:
        """What is served: deployments, endpoints, releases."""
        from ztom.client.endpoints import EndpointCalls

        return EndpointCalls(self._connection)

    @functools.cached_property
    def verdicts(self) -> VerdictCalls:
        """What the gate said."""
        from ztom.client.verdicts import VerdictCalls

        return VerdictCalls(self._connection)

    @classmethod
    def login(cls, server: str | None, username: str, password: str) -> Self:
        """A client of an account."""
        client = cls(server)
        body = Login.model_construct(username=username, password=password).body()
        token = client._connection.call("POST", "/api/auth/login", json=body).text
        client._connection.key = token
        return client

    @property
    def key(self) -> str:
        """The token or key in use."""
        return self._connection.key

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def who_am_i(self) -> User:
        """The account."""
        return self._connection.ask(User, "GET", "/api/auth/user")

    def limits(self) -> list[Limit]:
        """How much of the server the account holds, and may hold."""
        return self._connection.ask_all(Limit, "GET", "/v1/limits")

    def projects(self) -> list[Project]:
        """The projects that the account may see."""
        return self._connection.ask_all(Project, "GET", "/project")

    def project(self, project_id: str) -> Project:
        """One project with its files."""
        project_id = self.names.project_id(project_id)
        return self._connection.ask(Project, "GET", f"/project/{project_id}")

    def create_project(self, name: str, description: str = "") -> Project:
        """Make a project."""
        new = NewProject.model_construct(name=name, description=description, format=FORMAT)
        return self._connection.ask(Project, "POST", "/project", new)

    def delete_project(self, project_id: str, *, hard: bool = False) -> None:
        """Delete a project; ``hard`` takes its files as well."""
        project_id = self.names.project_id(project_id)
        deletion = ProjectDeletion.model_construct(project_ids=(project_id,), hard_delete=hard)
        self._connection.call("DELETE", "/project", json=deletion.body())

    def change_project(
        self, project_id: str, *, name: str | None = None, description: str | None = None
    ) -> Project:
        """Change what a project is called, or how it is described."""
        patch = ProjectPatch.model_construct(
            project_id=self.names.project_id(project_id), name=name, description=description
        )
        return self._connection.ask(Project, "PATCH", "/project", patch)

    def remove_file(self, project_id: str, file_id: str, *, hard: bool = False) -> None:
        """Take a checkpoint out of a project; ``hard`` takes its bytes as well."""
        project_id = self.names.project_id(project_id)
        deletion = FileDeletion.model_construct(
            project_id=project_id,
            file_id=self.names.file_id(project_id, file_id),
            hard_delete=hard,
        )
        self._connection.call("DELETE", "/project/file", json=deletion.body())

    def add_checkpoint(
        self,
        project_id: str,
        path: str | Path,
        *,
        name: str | None = None,
        tag: str | None = None,
        base: bool = False,
        progress: bool = False,
    ) -> Project:
        """Upload a checkpoint: a folder, which is sent as one tar, or a tar.

        Args:
            project_id: Id or name of the project.
            path: Folder or archive.
            name: Name of the checkpoint in the project; the folder's when None.
            tag: A short name.
            base: Whether it is the base model.
            progress: Whether to show a progress bar.
        """
        path = Path(path)
        project_id = self.names.project_id(project_id)
        upload = CheckpointUpload.model_construct(
            project_id=project_id, format=FORMAT, file_name=name or path.name, tag=tag
        )
        route = "/project/base-model" if base else "/project/file"
        with Sending(upload.body(), path, show=progress) as sending:
            return self._connection.ask(
                Project, "POST", route, content=sending.chunks(), headers=sending.headers
            )

    def point_to(
        self,
        project_id: str,
        address: str,
        *,
        name: str | None = None,
        tag: str | None = None,
        base: bool = False,
    ) -> Project:
        """Add a checkpoint that stays where it is, under a root that the operator allowed."""
        pointer = Pointer.model_construct(
            project_id=self.names.project_id(project_id),
            file_path=address,
            format=FORMAT,
            file_name=name or address.rstrip("/").rpartition("/")[2],
            tag=tag,
            base_model=base,
        )
        return self._connection.ask(Project, "POST", "/project/file/external", pointer)

    def metatune(
        self,
        project_id: str,
        factors: Mapping[str, float | Sequence[float]],
        path: str | Path,
        *,
        allow_config_differences: Sequence[str] = (),
        allow_tokenizer_differences: bool = False,
        on_warning: Callable[[str], None] | None = None,
        groups: Mapping[str, object] | str | None = None,
    ) -> Path:
        """Scale steps by hand and save the blend: as a tar or a folder, see `download`.

        Args:
            project_id: Id of the project whose chain is blended.
            factors: Scaling factor by the id or the tag of the file that a step ends in; with
                groups the factor of each group, in the groups' order.
            path: Path of the tar or folder to be.
            allow_config_differences: Keys of ``config.json`` in which the chain may differ.
            allow_tokenizer_differences: Whether the chain's tokenizers may differ.
            on_warning: Callback that gets each thing that the server warns of.
            groups: Groups of tensors that have factors of their own, as ``factors.groups`` of a
                search.
        """
        path = require_local(Path(path), what="where the checkpoint goes")
        project_id = self.names.project_id(project_id)
        of_steps = [[f] if isinstance(f, int | float) else list(f) for f in factors.values()]
        edit = Metatune.model_construct(
            project_id=project_id,
            file_ids=tuple(self.names.file_id(project_id, name) for name in factors),
            scaling_factors=tuple(factor for of_step in of_steps for factor in of_step),
            factor_groups=rule_of(groups),
            allow_config_differences=tuple(allow_config_differences),
            allow_tokenizer_differences=allow_tokenizer_differences,
        )
        return self._save_edit("/metatune", edit, path, on_warning)

    def remove_training(
        self,
        project_id: str,
        file_ids: Sequence[str],
        path: str | Path,
        *,
        allow_config_differences: Sequence[str] = (),
        allow_tokenizer_differences: bool = False,
        on_warning: Callable[[str], None] | None = None,
    ) -> Path:
        """Remove what was trained in these steps and save what is left; see `metatune`."""
        path = require_local(Path(path), what="where the checkpoint goes")
        project_id = self.names.project_id(project_id)
        edit = Edit.model_construct(
            project_id=project_id,
            file_ids=tuple(self.names.file_id(project_id, name) for name in file_ids),
            allow_config_differences=tuple(allow_config_differences),
            allow_tokenizer_differences=allow_tokenizer_differences,
        )
        return self._save_edit("/edit", edit, path, on_warning)

    def download(self, project_id: str, file_id: str, path: str | Path) -> Path:
        """Save a checkpoint: as a tar where the path ends in ``.tar``, else unpacked as a folder.

        Raises:
            ArchiveError: What came is no checkpoint.
        """
        path = require_local(Path(path), what="where the checkpoint goes")
        project_id = self.names.project_id(project_id)
        address = f"/project/file/{self.names.file_id(project_id, file_id)}"
        return save_checkpoint(
            self._connection, "GET", address, path, params={"projectId": project_id}
        )

    def _save_edit(
        self, address: str, edit: Edit, path: Path, on_warning: Callable[[str], None] | None
    ) -> Path:
        def warn(headers: Mapping[str, str]) -> None:
            for warning in filter(None, headers.get("X-Ztom-Warnings", "").split(" | ")):
                if on_warning is not None:
                    on_warning(warning)

        return save_checkpoint(
            self._connection, "POST", address, path, json=edit.body(), on_headers=warn
        )
