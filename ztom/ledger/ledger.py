"""The ledger: the truth about what was searched, written and served, in one database.

Its parts are its attributes; what one of them writes, and its row of the audit chain, is one
transaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ztom.ledger.accounts import Accounts
from ztom.ledger.audit_store import AuditChain
from ztom.ledger.database import Database, open_database, parse_address, read_database
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.invitations import Invitations
from ztom.ledger.project_files import ProjectFiles
from ztom.ledger.projects import Projects
from ztom.ledger.requests import Requests
from ztom.ledger.server_keys import ServerKeyStore
from ztom.ledger.signing_keys import SigningKeys
from ztom.ledger.studies import Studies
from ztom.ledger.usage import Usage
from ztom.ledger.variants import Variants
from ztom.ledger.verdicts import Verdicts
from ztom.ledger.work import RecordedWork


class Ledger:
    """Reads and writes the book-keeping; made by `Ledger.open`.

    Threads of one process may share it: their writes are serialised. Every method of its parts
    raises LedgerError when the database fails, is locked for longer than the busy timeout, or
    holds no such row.

    Attributes:
        studies: Searches with their trials, results and proofs.
        variants: Variants that were written, and those that a search has let out.
        audit: The audit chain.
        accounts: Users and their keys.
        invitations: Addresses with which somebody may make an account.
        projects: Chains of checkpoints, and who works on them.
        files: The checkpoints of projects.
        requests: Work that was asked of the server.
        endpoints: What is served: routing table, deployments, rollouts.
        verdicts: Verdicts of the gate.
        signing_keys: Keys whose signatures count.
        server_keys: Secrets of the server itself.
        usage: Who used how much of what is served.
        work: How much of all that there is, for who watches a server.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.studies = Studies(database)
        self.variants = Variants(database)
        self.audit = AuditChain(database)
        self.accounts = Accounts(database)
        self.invitations = Invitations(database)
        self.projects = Projects(database)
        self.files = ProjectFiles(database)
        self.requests = Requests(database)
        self.endpoints = Endpoints(database)
        self.verdicts = Verdicts(database)
        self.signing_keys = SigningKeys(database)
        self.server_keys = ServerKeyStore(database)
        self.usage = Usage(database)
        self.work = RecordedWork(database)

    @classmethod
    def open(cls, address: str | Path, *, busy_timeout_s: float = 10.0) -> Self:
        """Open the ledger, making the file or the tables when they do not exist.

        Args:
            address: A file, or a SQLAlchemy address.
            busy_timeout_s: How long a locked SQLite file is waited for.

        Raises:
            LedgerError: Unreachable, locked, damaged, or made by a newer version.
        """
        return cls(open_database(parse_address(address), busy_timeout_s=busy_timeout_s))

    @classmethod
    def read(cls, address: str | Path, *, busy_timeout_s: float = 10.0) -> Self:
        """Open a ledger that is there as evidence: to be read, and changed in nothing.

        Neither the file nor its folder changes, which may both be on a medium that cannot be
        written; writing to it raises.

        Args:
            address: A file, or a SQLAlchemy address.
            busy_timeout_s: How long a locked SQLite file is waited for.

        Raises:
            LedgerError: There is none, it is empty or damaged, or made by a newer version.
        """
        return cls(read_database(parse_address(address, make=False), busy_timeout_s=busy_timeout_s))

    def revision(self) -> str:
        """A text that is another one once anybody has written; see `Database.revision`.

        Raises:
            LedgerError: The database failed.
        """
        return self._database.revision()

    def close(self) -> None:
        """Give back the connections; calling it twice is harmless."""
        self._database.close()

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
