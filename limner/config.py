"""Typed settings, filled from a YAML file, `key=value` words and Python arguments.

One model says which settings there are, of which type, and what they mean; the file, the command
line and Python all go through it, so they accept the same and complain alike. Later sources win:
the file, then `key=value` words, then arguments.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Node = yaml.nodes.Node


class Settings(BaseModel):
    """A group of settings. Docstrings under the fields become the help texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


AnySettings = TypeVar("AnySettings", bound=Settings)


def read_settings(
    model: type[AnySettings],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    /,
    **values: Any,
) -> AnySettings:
    """Settings of `model` from a YAML file, `dotted.key=value` words and arguments.

    In the file and in the words `${other.key}` stands for another setting and `${oc.env:NAME}` for
    an environment variable; arguments are taken as they are.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: bad YAML, an unknown key, a wrong type or an impossible combination; one line
            that names the place, the key, the value, what was expected and the nearest right name.
    """
    places: dict[str, str] = {}
    tree: dict[str, Any] = {}
    if path is not None:
        tree, places = read_yaml(path)
    for word in overrides:
        key, value = parse_override(model, word)
        put(tree, key, value)
        places = {k: place for k, place in places.items() if not f"{k}.".startswith(f"{key}.")}
    tree = resolve(tree) | values
    try:
        return model.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(explain(model, error, tree, places)) from None


def parse_override(model: type[Settings], word: str) -> tuple[str, Any]:
    """The dotted key and the value of a `key=value` word, read as the setting's type asks.

    Raises ValueError that suggests the nearest right name if there is no such setting.
    """
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise ValueError(f"'{word}' is no setting: write key=value")
    annotation: Any = model
    parts = key.split(".")
    for index, part in enumerate(parts):
        inner = members(annotation)
        if part not in inner and ANY_KEY not in inner:
            raise ValueError(unknown(".".join(parts[: index + 1]), inner))
        annotation = inner.get(part, inner.get(ANY_KEY))
    return key, parse_value(annotation, text, word)


def parse_value(annotation: Any, text: str, source: str) -> Any:
    """A value as the type asks: text stays as typed, everything else is read as YAML."""
    if str in alternatives(annotation):
        empty = text in ("null", "~") and type(None) in alternatives(annotation)
        return None if empty else text
    return parse_yaml(text, source)


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the setting of a dotted key, making the groups on the way."""
    *groups, last = key.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            inner = tree[group] = {}
        tree = inner
    tree[last] = value


def resolve(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace every `${...}` by what it stands for; ValueError if that is nothing."""
    if "${" not in json.dumps(tree, default=str):
        return tree
    from omegaconf import OmegaConf  # takes 0.2 s, and few settings refer to one another
    from omegaconf.errors import OmegaConfBaseException

    try:
        return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(tree), resolve=True))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ValueError(f"{key}{reason} (write \\${{ for the characters themselves)") from None


# What may stand at a key


ANY_KEY = "*"


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; the type itself if it is none."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for member in get_args(annotation) for kind in alternatives(member))
    return (annotation,)


def members(annotation: Any) -> dict[str, Any]:
    """The names that may follow a dot after a value of this type, with their types."""
    inner: dict[str, Any] = {}
    for kind in alternatives(annotation):
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = kind.model_fields.items()
            inner |= {field.alias or name: field.annotation for name, field in fields}
        elif origin in (dict, Mapping) or (
            isinstance(origin, type) and issubclass(origin, Mapping)
        ):
            inner[ANY_KEY] = arguments[1]
        elif origin in (list, tuple):
            inner[ANY_KEY] = arguments[0]
    return inner


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """`; did you mean 'x'?`, or the known names if none is near."""
    if near := get_close_matches(name, list(known), n=1):
        return f"; did you mean '{near[0]}'?"
    return f": known are {', '.join(known)}" if known else ""


def unknown(key: str, known: Mapping[str, Any], place: str = "") -> str:
    """The message for a key that does not exist among `known`."""
    prefix = f"{place}: " if place else ""
    if not known:
        group = key.rpartition(".")[0]
        return f"{prefix}{key}: '{group}' is a single value, nothing can stand below it"
    return f"{prefix}{key}: unknown setting{nearest(key.rpartition('.')[2], known)}"


# Errors


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a group of key: value pairs",
    "model_type": "a group of settings",
    "path_type": "a path",
    "none_required": "null",
}


def explain(
    model: type[Settings], error: ValidationError, tree: Any, places: Mapping[str, str]
) -> str:
    """The first thing that is wrong, in one line.

    A misspelt key comes first, since the setting that it should have been is then missing as well.
    """
    found = error.errors(include_url=False)
    first = min(found, key=lambda detail: detail["type"] != "extra_forbidden")
    path = real_path(tree, first["loc"])
    key = ".".join(path)
    place = next((places[k] for k in prefixes(path) if k in places), "")
    if first["type"] == "extra_forbidden":
        return unknown(key, known_at(model, path[:-1]), place)
    message = describe(first, [d for d in found if real_path(tree, d["loc"]) == path])
    return ": ".join(part for part in (place, key, message) if part)


def describe(detail: ErrorDetails, all_here: Sequence[ErrorDetails]) -> str:
    """What was expected and what was found."""
    if detail["type"] == "missing":
        return "missing: it has no default"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    value = json.dumps(detail["input"], ensure_ascii=False, default=str)
    if detail["type"] == "literal_error":
        expected = detail["ctx"]["expected"]
        near = get_close_matches(str(detail["input"]), re.findall(r"'([^']*)'", expected), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"expected {expected}, not {value}{hint}"
    if all(d["type"] in EXPECTED for d in all_here):
        kinds = " or ".join(dict.fromkeys(EXPECTED[d["type"]] for d in all_here))
        return f"expected {kinds}, not {value}"
    message = detail["msg"].removeprefix("Input should be ")
    return f"expected {message}, not {value}"


def real_path(tree: Any, location: Sequence[int | str]) -> tuple[str, ...]:
    """The keys of an error's location; pydantic puts the names of a union's members between."""
    path: list[str] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(tree, dict) and (str(part) in tree or (last and not path)):
            path.append(str(part))
            tree = tree.get(str(part))
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            path.append(str(part))
            tree = tree[part]
        elif isinstance(tree, dict) and last:
            path.append(str(part))
    return tuple(path)


def known_at(model: type[Settings], path: Sequence[str]) -> dict[str, Any]:
    """The names that may stand in the group at `path`."""
    annotation: Any = model
    for part in path:
        inner = members(annotation)
        annotation = inner.get(part, inner.get(ANY_KEY))
    return members(annotation)


def prefixes(path: Sequence[str]) -> Iterator[str]:
    """The dotted key, then those of the groups around it."""
    for length in range(len(path), 0, -1):
        yield ".".join(path[:length])


# YAML without its surprises


class PlainLoader(yaml.SafeLoader):
    """YAML 1.2's plain reading of scalars.

    `no`, `on`, dates, `12:30`, `1_000` and numbers with leading zeros are text, `1e-4` is a number,
    and a key given twice is an error.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  the parent's own attribute

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that stands in it twice is an error."""
        assert isinstance(node, yaml.MappingNode)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key '{key.value}' stands here twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


_NUMBER = r"(?:0|[1-9][0-9]*)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", rf"[-+]?{_NUMBER}|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        rf"[-+]?(?:{_NUMBER}\.[0-9]*|\.[0-9]+|{_NUMBER}(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    PlainLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if character == "\0" else character for character in _first],
    )


def _construct_float(loader: PlainLoader, node: Node) -> float:
    assert isinstance(node, yaml.ScalarNode)
    return float(
        str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


PlainLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; ValueError gives `source` with line and column of what is wrong."""
    try:
        return yaml.load(text, PlainLoader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{place}: bad YAML: {problem}") from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings in a file, and where each key stands in it."""
    if not path.is_file():
        raise FileNotFoundError(f"no settings file '{path}'")
    text = decode_utf8(path.read_bytes(), str(path))
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected lines of 'key: value', not a {type(tree).__name__}")
    lines = dict(key_lines(yaml.compose(text, PlainLoader)))
    return tree, {key: f"{path}:{line}" for key, line in lines.items()}


def key_lines(node: Node | None, above: str = "") -> Iterator[tuple[str, int]]:
    """Every dotted key below a node, and its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{above}{key.value}"
            yield dotted, key.start_mark.line + 1
            yield from key_lines(value, f"{dotted}.")
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{above}{index}", value.start_mark.line + 1
            yield from key_lines(value, f"{above}{index}.")


def decode_utf8(data: bytes, source: str) -> str:
    """Text from bytes; ValueError names the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise ValueError(
            f"{source}: not UTF-8 at byte {offset} (0x{data[offset]:02x}): "
            "convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from None
