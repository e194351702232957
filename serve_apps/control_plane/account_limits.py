"""What one account holds of a server, and how much of it it may hold: searches, disk, engines.

All of it stands in the ledger and on disk, so it counts for every process of a server. Requests and
streams, which stand in a process, are `serve_apps.control_plane.places`'.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from serve_apps.control_plane.limit_settings import LimitSettings
from serve_apps.control_plane.places import Places, ServerSide
from serve_apps.control_plane.store import Store
from ztom.errors import QuotaError
from ztom.ledger.engine_quota import engines_of
from ztom.ledger.ledger import Ledger
from ztom.wire.limits import Limit

#: After so many seconds it is worth asking again for what ends by itself.
_RETRY_S = 30


class AccountLimits:
    """Counts what accounts hold, and refuses what would be more than they may.

    Args:
        settings: Settings that say how much that is.
        ledger: Ledger of the server.
        store: The server's own files.
        places: Places of requests in work in this process.
    """

    def __init__(
        self, settings: LimitSettings, ledger: Ledger, store: Store, places: Places
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._places = places
        self._reserved: Counter[str] = Counter()
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()

    def all_of(self, user_id: str) -> list[Limit]:
        """What an account holds, and may hold."""
        settings = self._settings
        deployed = self._ledger.endpoints.deployments.all()
        engines = engines_of(d for d in deployed if d.is_of(f"user:{user_id}"))
        limits = [
            Limit(
                name=str(side),
                used=self._places.held(side, user_id),
                limit=self._places.capacity(side).own,
            )
            for side in ServerSide
            if side is not ServerSide.ANONYMOUS
        ]
        searches = self._ledger.requests.open_searches(user_id)
        limits += [
            Limit(name="searches", used=searches, limit=settings.searches_per_caller),
            Limit(name="bytes on disk", used=self.nbytes(user_id), limit=settings.bytes_per_caller),
        ]
        return limits + [
            Limit(name=name, used=engines[name], limit=limit)
            for name, limit in settings.engine_quota.limits().items()
        ]

    def require_search(self, count: int) -> None:
        """Let an account queue one search more.

        Args:
            count: Number of its searches that are queued or run.

        Raises:
            QuotaError: It has all that it may.
        """
        limit = self._settings.searches_per_caller
        if count >= limit:
            raise QuotaError(
                "the account has all searches that it may have queued and running",
                got=f"{count} of {limit}",
                fix="Wait until one has ended, or cancel one (searches_per_caller is the "
                "operator's setting).",
                wait_s=_RETRY_S,
            )

    def require_bytes(self, user_ids: Iterable[str], nbytes: int = 1) -> None:
        """Let accounts keep so many bytes more.

        Raises:
            QuotaError: One of them would keep more than it may.
        """
        limit = self._settings.bytes_per_caller
        for user_id in user_ids:
            used = self.nbytes(user_id) + self._reserved[user_id]
            if used + nbytes > limit:
                raise QuotaError(
                    "the account would keep more bytes on disk than it may",
                    got=f"{used} and {nbytes} more",
                    expected=f"at most {limit}",
                    fix="Delete files or projects for good, with hardDelete (bytes_per_caller is "
                    "the operator's setting).",
                )

    def reserve(self, user_ids: Sequence[str], nbytes: int) -> Callable[[], None]:
        """Let accounts receive so many bytes.

        Returns:
            Function to call when they are on record, or given up.

        Raises:
            QuotaError: One of them would keep more than it may.
        """
        with self._lock:
            self.require_bytes(user_ids, nbytes)
            self._reserved.update(dict.fromkeys(user_ids, nbytes))

        def release() -> None:
            with self._lock:
                self._reserved.subtract(dict.fromkeys(user_ids, nbytes))

        return release

    def nbytes(self, user_id: str) -> int:
        """Bytes on disk: files and data of the account's projects, and what its requests wrote."""
        ledger, store = self._ledger, self._store
        projects = ledger.projects.owned_by(user_id)
        total = 0
        for address, size in ledger.files.managed_of(projects).items():
            path = Path(address)
            if path.parent == store.checkpoints:
                total += size + _folder_bytes(store.unpacked(path))
        total += sum(_folder_bytes(store.data_folder(project_id)) for project_id in projects)
        for request_id, is_open in ledger.requests.of_user(user_id).items():
            total += self._request_bytes(request_id, is_open=is_open)
        return total

    def _request_bytes(self, request_id: str, *, is_open: bool) -> int:
        """Bytes of a request's folder; of one that has ended they stay what they are."""
        folder = self._store.requests / request_id
        if is_open or not folder.exists():
            self._ended.pop(request_id, None)
            return _folder_bytes(folder)
        if request_id not in self._ended:
            self._ended[request_id] = _folder_bytes(folder)
        return self._ended[request_id]


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; what goes meanwhile counts as nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        total += status.st_size if path.is_file() and not path.is_symlink() else 0
    return total
