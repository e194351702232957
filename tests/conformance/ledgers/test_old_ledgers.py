"""A ledger of an older version opens, and what was allowed there stays allowed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

import ztom.ledger.database
from ztom.ledger import Ledger
from ztom.ledger.database import parse_address

A = "a" * 64


def test_who_had_deployed_may_go_on_and_what_was_judged_is_a_claim(ledger_address: str) -> None:
    config = Config()
    folder = Path(ztom.ledger.database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    engine = create_engine(parse_address(ledger_address))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        user = (
            "INSERT INTO users (id, username, email, first_name, last_name, password_hash, "
            "is_admin, enabled, session, created) "
            "VALUES (:id, :id, :id, '', '', 'h', :no, :yes, 1, '2026')"
        )
        for name in ("ada", "adam", "eve"):
            connection.execute(text(user), {"id": name, "no": False, "yes": True})
        deployment = (
            "INSERT INTO deployments (digest, name, address, options, state, insisted, actor, "
            "created) VALUES (:digest, 'v', '/v', '{}', 'ready', :no, :actor, '2026')"
        )
        for digest, actor in (("1" * 64, "user:ada key:1"), ("2" * 64, "user:adam")):
            values = {"digest": digest, "no": False, "actor": actor}
            connection.execute(text(deployment), values)
        verdict = (
            "INSERT INTO gate_verdicts (number, sha256, candidate, outcome, content, actor, "
            "created) VALUES (1, :sha256, :candidate, 'pass', '{}', 'user:ada', '2026')"
        )
        connection.execute(text(verdict), {"sha256": "b" * 64, "candidate": A})
    engine.dispose()
    with Ledger.open(ledger_address) as ledger:
        rights = {user.username: user.may_deploy for user in ledger.accounts.all()}
        assert rights == {"ada": True, "adam": True, "eve": False}
        record = ledger.verdicts.latest(A, project_id=None)
        assert record is not None
        assert (record.outcome, record.signer, record.is_claim) == ("pass", None, True)
        assert [d.signed_by for d in ledger.endpoints.deployments.all()] == [None, None]
        assert ledger.invitations.all() == ledger.signing_keys.all() == ()
