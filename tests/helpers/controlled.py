"""A controller that looks when told, at a ledger and a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server_helpers import Stage
from variant_folders import write_folder

from serve_apps.controller.lanes import Lanes
from serve_apps.controller.reconcile import Reconciler
from ztom.ledger import Ledger
from ztom.ledger.deployments import NewDeployment
from ztom.rollout.intent import Intent
from ztom.rollout.routing import RoutingTable


class Controlled:
    """A ledger, a stage, and a controller.

    Attributes:
        now: Seconds of the controller's clock.
    """

    def __init__(self, ledger: Ledger, folder: Path, lanes: Lanes | None = None) -> None:
        self.ledger, self.endpoints, self.stage = ledger, ledger.endpoints, Stage()
        self._folder = folder
        self.now = 0.0
        self._reconciler = Reconciler(
            ledger.endpoints, ledger.verdicts, self.stage, lanes=lanes, clock=lambda: self.now
        )

    def write(self, name: str) -> str:
        return write_folder(self._folder / name)[1]

    def want(self, name: str, digest: str, alias: str = "support", **wish: Any) -> None:
        intent = Intent.model_validate({"alias": alias, **wish})
        new = NewDeployment(digest, name, str(self._folder / name), intent=intent)
        self.endpoints.claim(alias, None)
        self.endpoints.deployments.deploy(new, actor="t")

    def serve(self, name: str, **wish: Any) -> str:
        digest = self.write(name)
        self.want(name, digest, **(wish or {"now": True}))
        self.look()
        return digest

    def look(self) -> None:
        for _ in range(2):
            self._reconciler.round()

    @property
    def table(self) -> RoutingTable:
        return self.endpoints.table()
