"""Files of the user's that outlive the server: where they are, and how they are opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """Where a user's data are kept: LIMNER_DATA, else as the platform has it."""
    if chosen := os.environ.get("LIMNER_DATA"):
        return Path(chosen).expanduser()
    return platformdirs.user_data_path("limner", appauthor=False)


@contextmanager
def opened(path: Path, table: str, columns: Mapping[str, str]) -> Iterator[sqlite3.Connection]:
    """A database inside a transaction, readable by its owner alone.

    Its one table is made, or given the columns that an older version did not know, if need be.
    Several processes may use it at once, and a kill leaves it as it was before the transaction.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({listed})")
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for name, kind in columns.items():
            if name not in known:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
        yield connection
