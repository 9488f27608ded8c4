"""`limner keys`: API keys for `limner serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark

if TYPE_CHECKING:
    from limner.serving.keys import Rights


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
    admin: bool = False
    """let the new key's holder load and unload models"""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """requests that the new key's holder may make a minute"""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """tokens that those may read and write a minute"""


def run(settings: Command) -> None:
    """Print the new key, or the keys there are."""
    from limner.serving.keys import KeyStore, Rights

    store = KeyStore()
    if settings.action == "list":
        for key in store.list():
            print("  ".join([key.created, key.id, key.name, *described(key.rights)]))
        return
    if settings.name is None:
        raise ValueError(f"which key? Say `limner keys {settings.action} NAME`")
    if settings.action == "create":
        rights = Rights(settings.admin, settings.requests_per_minute, settings.tokens_per_minute)
        print(store.create(settings.name, rights))
        remark("This is the only time the key is shown.")
    else:
        store.revoke(settings.name)


def described(rights: Rights) -> list[str]:
    """What a key may do beyond asking, and how much it may ask."""
    words = ["admin"] if rights.admin else []
    if rights.requests_per_minute is not None:
        words.append(f"{rights.requests_per_minute} requests a minute")
    if rights.tokens_per_minute is not None:
        words.append(f"{rights.tokens_per_minute} tokens a minute")
    return words
