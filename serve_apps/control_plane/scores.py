"""Scores of checkpoints, computed in the background: until then they are null on the wire."""

from __future__ import annotations

import logging

from serve_apps.control_plane.chains import spec
from serve_apps.control_plane.runner import in_thread
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import Scored, score_checkpoint
from ztom.errors import NotOnRecordError, ZtomError
from ztom.ledger.projects import CheckpointRecord, Part, ProjectRecord

logger = logging.getLogger(__name__)


async def score_pending(services: Services) -> int:
    """Look at every file that was not looked at yet; returns how many."""
    files = await in_thread(services.ledger.projects.pending)
    for file in files:
        await _score(file, services)
    return len(files)


async def _score(file: CheckpointRecord, services: Services) -> None:
    try:
        project = await in_thread(services.ledger.projects.get, file.project_id)
    except NotOnRecordError:
        return  # its project was deleted
    members, before = compared(project, file)
    try:
        found = await services.runner.call(score_checkpoint, spec(members, services), before=before)
    except ZtomError as error:
        logger.warning("checkpoint %s could not be looked at: %s", file.id, error)
        found = Scored(None, message=str(error))
    await in_thread(
        lambda: services.ledger.projects.set_scores(
            file.id,
            address=file.address,
            digest=found.digest,
            weight_score=found.weights,
            bias_score=found.biases,
            message=found.message,
        )
    )


def compared(
    project: ProjectRecord, file: CheckpointRecord
) -> tuple[list[CheckpointRecord], int | None]:
    """A chain that ends with the file, and the position of what it is compared with.

    An iteration is compared with the one before it, the first one with the base model, a mastered
    checkpoint with the last of the chain. The chain begins with its first member, which adapters
    need.
    """
    chain = list(project.chain)
    if file.part is Part.MASTERED:
        earlier = chain
    else:
        at = next((i for i, each in enumerate(chain) if each.id == file.id), 0)
        earlier = chain[:at]
    if not earlier:
        return [file], None
    members = [earlier[0], *([earlier[-1]] if len(earlier) > 1 else []), file]
    return members, len(members) - 2
