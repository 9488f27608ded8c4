"""Files of records, one a document: JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limner.config import decode_utf8
from limner.data.extra import import_extra
from limner.data.files import bare_suffix, open_bytes

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
#: Records of a Parquet file in memory together.
RECORDS = 1000


def is_table(path: Path) -> bool:
    """Whether a file holds records, by its name."""
    return bare_suffix(path) in (*JSON_LINES, PARQUET)


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, with their ends; ValueError names one that is not UTF-8."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            yield decode_utf8(line, f"{path}:{number}")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; ValueError names the place of what is none."""
    if bare_suffix(path) == PARQUET:
        yield from _parquet_records(path)
        return
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            record = _parse(line, f"{path}:{number}")
            if not isinstance(record, dict):
                raise ValueError(f"{path}:{number}: a {type(record).__name__} is no record")
            yield record


def read_field(path: Path, field: str) -> Iterator[str]:
    """The texts in one field of a file's records; ValueError names the place of what is none."""
    if bare_suffix(path) == PARQUET:
        yield from _parquet_field(path, field)
        return
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield _json_field(line, field, f"{path}:{number}")


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}") from None


def _json_field(line: str, field: str, place: str) -> str:
    record = _parse(line, place)
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        has = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{place}: no text in field '{field}': it has {has}; name another field")
    # JSON can spell half of a surrogate pair, which is no character.
    return text.encode("utf-8", "replace").decode()


def _parquet_records(path: Path, fields: list[str] | None = None) -> Iterator[dict[str, Any]]:
    with _open_parquet(path) as file:
        for batch in file.iter_batches(RECORDS, columns=fields):
            yield from batch.to_pylist()


def _parquet_field(path: Path, field: str) -> Iterator[str]:
    with _open_parquet(path) as file:
        names = file.schema_arrow.names
    if field not in names:
        raise ValueError(
            f"{path}: no field '{field}': it has {', '.join(names)}; name another field"
        )
    for number, record in enumerate(_parquet_records(path, [field]), 1):
        text = record[field]
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ValueError(f"{path}, record {number}: '{field}' is {kind}, no text")
        yield text


def _open_parquet(path: Path) -> Any:
    parquet = import_extra("pyarrow.parquet", "data", "reading Parquet")
    arrow = import_extra("pyarrow", "data", "reading Parquet")
    try:
        return parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file, or a damaged one: {error}") from None
