"""What a folder of token shards holds: counts, hashes, and the tokenizer that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from limner.config import Settings
from limner.files import write_whole
from limner.tokenizers import Tokenizer

MANIFEST = "manifest.json"


class TokenizerIdentity(Settings):
    """Which tokenizer made the tokens."""

    hash: str
    """SHA-256 of its tokenizer.json and of what its special tokens are for"""
    vocabulary: int
    end: int | None
    """the token that ends each document"""


class Shard(Settings):
    """One file: its tokens, then zero bytes up to a multiple of 8, then where documents end."""

    file: str
    tokens: int
    documents: int
    text_bytes: int
    """bytes of UTF-8 that the tokens stand for, for losses in bits a byte"""
    hash: str
    """SHA-256 of the file"""


class Amount(Settings):
    """How many documents, and bytes of text that they are or that were found in them."""

    documents: int
    text_bytes: int


class Manifest(Settings):
    """All shards of a folder. `complete` is false while they are being made."""

    format: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    tokenizer: TokenizerIdentity
    source: str
    shards: tuple[Shard, ...] = ()
    position: dict[str, Any] | None = None
    """where the source stood after the last shard"""
    filters: dict[str, Any] | None = None
    """what was done to documents first, where that is not the default"""
    refused: Mapping[str, Amount] = Field(default_factory=dict)
    """documents left out, by reason"""
    noted: Mapping[str, Amount] = Field(default_factory=dict)
    """documents kept that were repaired or hold something, by what; with the bytes of that"""
    refused_bytes: int = 0
    """length of the file that refused documents were written into"""
    complete: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """Bytes of text that all tokens stand for."""
        return sum(shard.text_bytes for shard in self.shards)

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_whole(folder / MANIFEST, [self.model_dump_json(indent=2).encode(), b"\n"])


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder; errors name the file and the way out."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"no {MANIFEST} in '{folder}': make token shards there with `limner data prepare`"
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(
            f"{path} is damaged ({where}: {first['msg']}): prepare the data again"
        ) from None


def identify(tokenizer: Tokenizer) -> TokenizerIdentity:
    """The identity of a tokenizer: equal for tokenizers that make the same tokens."""
    spelled = json.dumps([tokenizer.engine.to_str(), sorted(tokenizer.roles.items())])
    return TokenizerIdentity(
        hash=hashlib.sha256(spelled.encode()).hexdigest(),
        vocabulary=tokenizer.vocabulary_size,
        end=tokenizer.eos_id,
    )
