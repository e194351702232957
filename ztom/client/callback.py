"""Registers each checkpoint that a `transformers.Trainer` saves, while the training runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ztom.client.client import Client
from ztom.errors import ZtomError

logger = logging.getLogger(__name__)


class RegisterCheckpoints(TrainerCallback):  # type: ignore[misc]
    """``Trainer(callbacks=[RegisterCheckpoints(client, project.id)])``.

    A checkpoint that cannot be registered does not stop the training: it is said in the log, and it
    is tried again with the next one and at the end.

    Args:
        client: Client of the server.
        project_id: Id of the project.
        upload: Whether to send the files; otherwise the project points to them, which takes a
            folder that the server sees under an allowed root.
    """

    def __init__(self, client: Client, project_id: str, *, upload: bool = True) -> None:
        self._client = client
        self._project_id = project_id
        self._upload = upload
        self._waiting: list[Path] = []
        self.registered: list[str] = []

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint was saved."""
        if not state.is_world_process_zero:
            return
        self._waiting.append(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._register()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Try once more what is left."""
        if state.is_world_process_zero:
            self._register()

    def _register(self) -> None:
        while self._waiting:
            path = self._waiting[0]
            if not path.is_dir():  # removed by save_total_limit
                logger.warning("%s is gone and was not registered", path)
                self._waiting.pop(0)
                continue
            try:
                if self._upload:
                    self._client.add_checkpoint(self._project_id, path)
                else:
                    self._client.point_to(self._project_id, str(path.absolute()))
            except ZtomError as error:
                logger.warning("%s is not registered yet: %s", path, error)
                return
            self.registered.append(path.name)
            self._waiting.pop(0)
