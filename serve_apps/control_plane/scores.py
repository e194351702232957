"""Scores of checkpoints, computed in the background: until then they are null on the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from serve_apps.control_plane.chains import ProjectChain, with_base
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import CheckpointScores, score_checkpoint
from ztom.errors import ChainError, EngineError, NotOnRecordError, StorageError, ZtomError
from ztom.ledger.checkpoints import CheckpointRecord, FileStatus, Part
from ztom.ledger.projects import ProjectRecord

logger = logging.getLogger(__name__)

_TRIES, _PAUSE_S = 6, 5.0


class Scorer:
    """Looks at files; what may pass is tried again, a few times, with longer and longer pauses."""

    def __init__(self) -> None:
        self._again: dict[str, tuple[int, float]] = {}

    async def round(self, services: Services) -> bool:
        """Look at every file that was not looked at yet; returns whether there was one."""
        pending = await asyncio.to_thread(services.ledger.files.pending)
        for file in pending:
            tries, not_before = self._again.get(file.id, (0, 0.0))
            if time.monotonic() < not_before:
                continue
            scores = await self._look(file, services, last=tries + 1 >= _TRIES)
            if scores is None:
                pause = _PAUSE_S * 2**tries
                self._again[file.id] = (tries + 1, time.monotonic() + pause)
                continue
            self._again.pop(file.id, None)
            await asyncio.to_thread(_write_down, file, scores, services)
        return bool(pending)

    async def _look(
        self, file: CheckpointRecord, services: Services, *, last: bool
    ) -> CheckpointScores | None:
        """The scores; None for what may pass."""
        try:
            project = await asyncio.to_thread(services.ledger.projects.get, file.project_id)
            members, before = compared(project, file)
            chain = await asyncio.to_thread(_with_base_if_any, members, services)
            if chain.base is not None:
                before = 0 if before is None else before + 1
            return await services.runner.call(score_checkpoint, chain.spec(services), before=before)
        except NotOnRecordError:
            return None  # its project was deleted
        except Exception as error:
            message = str(error) if isinstance(error, ZtomError) else type(error).__name__
            logger.warning("checkpoint %s could not be looked at: %s", file.id, message)
            passes = not isinstance(error, ZtomError) or isinstance(
                error, StorageError | EngineError
            )
            if passes and not last:
                return None
            return CheckpointScores(None, message=message, usable=False)


def _with_base_if_any(members: Sequence[CheckpointRecord], services: Services) -> ProjectChain:
    """A base model that adapters name may still be on its way."""
    try:
        return with_base(members, services)
    except ChainError:
        return ProjectChain(tuple(members))


def _write_down(file: CheckpointRecord, scores: CheckpointScores, services: Services) -> None:
    services.ledger.files.set_scores(
        file.id,
        address=file.address,
        digest=scores.digest,
        weight_score=scores.weights,
        bias_score=scores.biases,
        message=scores.message and services.store.without_folders(scores.message),
        usable=scores.usable,
    )


def compared(
    project: ProjectRecord, file: CheckpointRecord
) -> tuple[list[CheckpointRecord], int | None]:
    """A chain that ends with the file, and the position of what it is compared with.

    An iteration is compared with the one before it, the first one with the base model, a mastered
    checkpoint with the last of the chain. One that cannot be used is passed over, as it will have
    to be left out of the chain. The chain begins with its first member, which adapters need; where
    that cannot be used there is nothing to compare with.
    """
    chain = list(project.chain)
    if file.part is Part.MASTERED:
        earlier = chain
    else:
        at = next((i for i, member in enumerate(chain) if member.id == file.id), 0)
        earlier = chain[:at]
    if not earlier or earlier[0].status is FileStatus.INVALID:
        return [file], None
    usable = [member for member in earlier if member.status is not FileStatus.INVALID]
    members = [usable[0], *([usable[-1]] if len(usable) > 1 else []), file]
    return members, len(members) - 2
