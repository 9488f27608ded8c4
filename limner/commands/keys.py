"""`limner keys`: API keys for `limner serve`."""

from __future__ import annotations

from typing import ClassVar, Literal

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark


class Command(CommandSettings):
    """Create, list or revoke API keys for the server.

    A key is shown once, when it is made; only its hash is kept, in the user's data folder
    (LIMNER_DATA chooses another). Revoking works at once, on running servers too.
    """

    positional: ClassVar[tuple[str, ...]] = ("action", "name")

    action: Literal["create", "list", "revoke"]
    """create, list or revoke"""
    name: str | None = None
    """what the key is called, by which it can be revoked"""


def run(settings: Command) -> None:
    """Print the new key, or the keys there are."""
    from limner.serving.keys import KeyStore

    store = KeyStore()
    if settings.action == "list":
        for key in store.list():
            print(f"{key.created}  {key.id}  {key.name}")
        return
    if settings.name is None:
        raise ValueError(f"which key? Say `limner keys {settings.action} NAME`")
    if settings.action == "create":
        print(store.create(settings.name))
        remark("This is the only time the key is shown.")
    else:
        store.revoke(settings.name)
