"""Responses that were stored: they outlive the server, and a kill of it."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from limner.serving.answering import Json
from limner.serving.database import data_folder, opened

COLUMNS = {
    "id": "TEXT PRIMARY KEY",
    "owner": "TEXT NOT NULL",
    "created": "REAL NOT NULL",
    "reply": "TEXT NOT NULL",
    "input": "TEXT NOT NULL",
}

#: OpenAI keeps responses for 30 days.
KEPT_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Stored:
    """A response, and all items that the model had read for it, those of earlier ones too."""

    reply: Json
    input: list[Json]

    @property
    def conversation(self) -> list[Json]:
        """What a response that follows goes on from."""
        return [*self.input, *self.reply["output"]]


class ResponseStore:
    """A file of the user's; what one owner stored no other finds."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = data_folder() / "responses.sqlite" if path is None else path

    def put(self, owner: str, stored: Stored) -> None:
        """Keep a response, and drop those that are older than 30 days."""
        now = time.time()
        row = (stored.reply["id"], owner, now, json.dumps(stored.reply), json.dumps(stored.input))
        with self._open() as connection:
            connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?)", row)
            connection.execute("DELETE FROM responses WHERE created < ?", (now - KEPT_SECONDS,))

    def get(self, owner: str, name: str) -> Stored | None:
        """The response of this id, or None."""
        if not self.path.exists():
            return None
        query = "SELECT reply, input FROM responses WHERE id = ? AND owner = ?"
        with self._open() as connection:
            row = connection.execute(query, (name, owner)).fetchone()
        return Stored(json.loads(row[0]), json.loads(row[1])) if row else None

    def delete(self, owner: str, name: str) -> bool:
        """Forget a response; whether there was one."""
        if not self.path.exists():
            return False
        query = "DELETE FROM responses WHERE id = ? AND owner = ?"
        with self._open() as connection:
            return connection.execute(query, (name, owner)).rowcount > 0

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self.path, "responses", COLUMNS)
