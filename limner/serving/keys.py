"""API keys: made here, shown once, and kept as hashes only."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from limner.serving.database import data_folder, opened

PREFIX = "limner"

COLUMNS = {
    "id": "TEXT PRIMARY KEY",
    "name": "TEXT NOT NULL UNIQUE",
    "hash": "BLOB NOT NULL",
    "created": "TEXT NOT NULL",
    "admin": "INTEGER NOT NULL DEFAULT 0",
    "requests_per_minute": "INTEGER",
    "tokens_per_minute": "INTEGER",
}


@dataclass(frozen=True)
class Rights:
    """What a key's holder may do."""

    admin: bool = False
    """Load and unload models."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens read and written."""

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"{name} must be 1 or more, not {value}: leave it out for no limit"
                )


@dataclass(frozen=True)
class Key:
    """What is known of a key: never the key itself."""

    id: str
    name: str
    created: str
    rights: Rights = Rights()


class KeyStore:
    """The keys in a file of the user's; several processes may use it at once.

    A key is 256 random bits behind an id. Nobody guesses those, so one round of SHA-256 hides them
    as well as a slow hash would, and a request need not wait for one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = data_folder() / "keys.sqlite" if path is None else path

    def create(self, name: str, rights: Rights | None = None) -> str:
        """A new key, which cannot be seen again. Raises ValueError if the name is taken."""
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise ValueError(f"a key's name is 1 to 100 printable characters, not {name!r}")
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = f"{PREFIX}-{identity}-{secret}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = (identity, name, _hash(key), now, *astuple(rights or Rights()))
        with self._open() as connection:
            try:
                marks = ", ".join("?" * len(COLUMNS))
                listed = ", ".join(COLUMNS)
                connection.execute(f"INSERT INTO keys ({listed}) VALUES ({marks})", row)
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
            rows = connection.execute(f"SELECT {KNOWN} FROM keys ORDER BY created, name")
            return [_key(row) for row in rows]

    def revoke(self, name: str) -> None:
        """Make a key invalid, at once. Raises ValueError if there is none of this name."""
        with self._open() as connection:
            if not connection.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount:
                raise ValueError(f"there is no key named '{name}'")

    def find(self, key: str) -> Key | None:
        """What is known of a key, or None if it is not valid."""
        identity = key.split("-")[1] if key.count("-") >= 2 else ""
        if not self.path.exists():
            return None
        with self._open() as connection:
            query = f"SELECT hash, {KNOWN} FROM keys WHERE id = ?"
            row = connection.execute(query, (identity,)).fetchone()
        kept = row[0] if row else bytes(32)
        # compared whole, wherever they differ, so that the time taken tells nothing
        same = secrets.compare_digest(kept, _hash(key))
        return _key(row[1:]) if row and same else None

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self.path, "keys", COLUMNS)


#: What is read of a key, in the order of `Key` and `Rights`.
KNOWN = ", ".join(["id", "name", "created", *(field.name for field in fields(Rights))])


def _key(row: tuple[str, str, str, int, int | None, int | None]) -> Key:
    identity, name, created, admin, requests, tokens = row
    return Key(identity, name, created, Rights(bool(admin), requests, tokens))


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
