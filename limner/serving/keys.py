"""API keys: made here, shown once, and kept as hashes only."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PREFIX = "limner"

TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL,
    created TEXT NOT NULL
)"""


def data_folder() -> Path:
    """Where a user's data are kept: LIMNER_DATA, else as the platform has it."""
    if chosen := os.environ.get("LIMNER_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "limner" / "data"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "limner"
    configured = os.environ.get("XDG_DATA_HOME")
    return (Path(configured) if configured else Path.home() / ".local" / "share") / "limner"


@dataclass(frozen=True)
class Key:
    """What is known of a key: never the key itself."""

    id: str
    name: str
    created: str


class KeyStore:
    """The keys in a file of the user's; several processes may use it at once.

    A key is 256 random bits behind an id. Nobody guesses those, so one round of SHA-256 hides them
    as well as a slow hash would, and a request need not wait for one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = data_folder() / "keys.sqlite" if path is None else path

    def create(self, name: str) -> str:
        """A new key, which cannot be seen again. Raises ValueError if the name is taken."""
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise ValueError(f"a key's name is 1 to 100 printable characters, not {name!r}")
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = f"{PREFIX}-{identity}-{secret}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._open() as connection:
            try:
                row = (identity, name, _hash(key), now)
                connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise ValueError(
                    f"there is a key named '{name}' already: revoke it or take another name"
                ) from None
        return key

    def list(self) -> list[Key]:
        """The keys that are valid, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            rows = connection.execute("SELECT id, name, created FROM keys ORDER BY created, name")
            return [Key(*row) for row in rows]

    def revoke(self, name: str) -> None:
        """Make a key invalid, at once. Raises ValueError if there is none of this name."""
        with self._open() as connection:
            if not connection.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount:
                raise ValueError(f"there is no key named '{name}'")

    def owner(self, key: str) -> str | None:
        """The name of a key, or None if it is not valid."""
        identity = key.split("-")[1] if key.count("-") >= 2 else ""
        if not self.path.exists():
            return None
        with self._open() as connection:
            query = "SELECT hash, name FROM keys WHERE id = ?"
            row = connection.execute(query, (identity,)).fetchone()
        kept, name = row or (bytes(32), None)
        # compared whole, wherever they differ, so that the time taken tells nothing
        return name if secrets.compare_digest(kept, _hash(key)) else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database inside a transaction, readable by its owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.touch(mode=0o600)
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(TABLE)
            yield connection


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
