"""From a command's settings to its command line, and back.

A command is a module with a `Command` (its settings, whose docstrings are the help) and `run`.
Every setting is a flag and a `key=value` word by itself, so no command parses anything.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from limner.config import (
    ANY_KEY,
    Settings,
    alternatives,
    decode_utf8,
    members,
    parse_value,
    read_settings,
)

OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


class CommandSettings(Settings):
    """The settings of a command; `positional` may be given without their names, in this order.

    If the last of those is a list, it takes all further words, those like KEY=VALUE too whose KEY
    is no setting's name nor nearly one.
    """

    positional: ClassVar[tuple[str, ...]] = ()


def run_command(name: str, words: Sequence[str]) -> int:
    """Run the command `name` with the words that follow it; returns the exit code.

    Raises ValueError or OSError with a message for the user.
    """
    refuse_broken_words(words)
    make_output_safe()
    module = importlib.import_module(f"limner.commands.{name.replace('-', '_')}")
    settings = parse(name, module.Command, words)
    if settings is None:
        return 0
    # Outside of Typer, which has its own ideas about Ctrl-C and broken pipes.
    module.run(settings)
    sys.stdout.flush()
    return 0


def parse(name: str, model: type[CommandSettings], words: Sequence[str]) -> CommandSettings | None:
    """The settings that the words ask for; None if they ask for help, which is printed."""
    before, after = split_at_dashes(words)
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    shape = " ".join(f"[{setting.upper()}]" for setting in model.positional)
    application.command(
        name,
        help=inspect.getdoc(model),
        options_metavar=f"[SETTINGS.yaml] {shape} [--FLAG VALUE]...",
    )(typer_function(model, after))
    try:
        result = application(before, prog_name=f"limner {name}", standalone_mode=False)
    except typer.TyperException as error:
        raise ValueError(error.format_message()) from None
    return result if isinstance(result, CommandSettings) else None


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before and after the first bare `--`; those after it are never settings."""
    place = list(words).index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def typer_function(
    model: type[CommandSettings], plain: Sequence[str]
) -> Callable[..., CommandSettings]:
    """A function in whose signature Typer finds the flags of `model`; it makes the settings.

    `plain` are words that are values of positional settings whatever they look like.
    """

    def command(words: list[str], verbose: int, traceback: bool, **flags: Any) -> CommandSettings:  # noqa: ARG001  main() looks for --traceback
        set_up_logging(verbose)
        path, overrides, values = sort_words(words or [], plain, model)
        given = {name: typed for name, typed in flags.items() if typed not in (None, [])}
        return read_settings(model, path, overrides, **from_text(model, values | given))

    parameters = list(typer_parameters(model))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def sort_words(
    words: Sequence[str], plain: Sequence[str], model: type[CommandSettings]
) -> tuple[Path | None, list[str], dict[str, Any]]:
    """The settings file, the `key=value` words, and the values of positional settings."""
    positional, rest = model.positional, list(words)
    path = Path(rest.pop(0)) if rest and rest[0].endswith((".yaml", ".yml")) else None
    overrides = [word for word in rest if sets_something(word, model)]
    values: list[Any] = [word for word in rest if not sets_something(word, model)] + list(plain)
    if takes_the_rest(model) and len(values) >= len(positional):
        values[len(positional) - 1 :] = [values[len(positional) - 1 :]]
    if len(values) > len(positional):
        names = " and ".join(name.upper() for name in positional)
        raise ValueError(
            f"'{values[len(positional)]}' is one argument too many after {names}: "
            "put a text of several words in quotes"
        )
    return path, overrides, dict(zip(positional, values, strict=False))


def takes_the_rest(model: type[CommandSettings]) -> bool:
    """Whether the last positional setting is a list."""
    last = model.model_fields[model.positional[-1]] if model.positional else None
    return last is not None and get_origin(last.annotation) in (list, tuple)


def sets_something(word: str, model: type[CommandSettings]) -> bool:
    """Whether a word is KEY=VALUE for a setting, be it misspelt."""
    if not OVERRIDE.match(word):
        return False
    key, known = re.split(r"[.=]", word)[0], members(model)
    return not takes_the_rest(model) or bool(get_close_matches(key, known))


def from_text(model: type[Settings], texts: dict[str, Any]) -> dict[str, Any]:
    """Values of settings from what was typed, once or several times, or a bare flag's true."""
    values = {}
    for name, typed in texts.items():
        field = model.model_fields[name]
        kind, source = field.annotation, flag(field.alias or name)
        if isinstance(typed, str):
            value = parse_value(kind, typed, source)
        elif isinstance(typed, list):
            value = [parse_value(members(kind)[ANY_KEY], text, source) for text in typed]
        else:
            value = typed
        values[field.alias or name] = value
    return values


def typer_parameters(model: type[CommandSettings]) -> Iterator[inspect.Parameter]:
    """What Typer reads: the words, a flag for each setting, and the flags of every command."""
    words = typer.Argument(metavar="KEY=VALUE", hidden=True)
    yield parameter("words", list[str] | None, None, words)
    own = [*model.positional, *model.__annotations__]
    ordered = sorted(model.model_fields, key=lambda name: name not in own)
    for name in ordered:
        yield parameter(name, *setting_flag(name, model.model_fields[name]))
    verbose = typer.Option(
        "-v", "--verbose", count=True, show_default=False, help="say what is done; -vv says more"
    )
    yield parameter("verbose", int, 0, verbose)
    yield parameter(
        "traceback", bool, False, typer.Option("--traceback", help="show where an error came from")
    )


def parameter(name: str, annotation: Any, default: Any, kind: Any) -> inspect.Parameter:
    """A keyword parameter in the form that Typer reads."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, kind],
    )


def setting_flag(name: str, field: FieldInfo) -> tuple[Any, Any, Any]:
    """The type, the default and the flag of one setting, as Typer wants them.

    No flag has a default of its own, so that one not given leaves the file's value alone.
    """
    kinds = alternatives(field.annotation)
    about = " ".join((field.description or "").split())
    plain = not isinstance(field.default, Settings)
    if plain and not field.is_required() and field.default not in (None, False, ()):
        about += f" (default: {field.default})"
    written = flag(field.alias or name)
    if bool in kinds:
        return bool | None, None, typer.Option(f"{written}/--no-{written[2:]}", help=about)
    option = typer.Option(written, metavar=metavar(field.annotation), help=about)
    several = any(get_origin(kind) in (list, tuple) for kind in kinds)
    return list[str] | None if several else str | None, None, option


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def metavar(annotation: Any) -> str:
    """What stands for the value in the help."""
    names = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
    for kind in alternatives(annotation):
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
        if kind in names:
            return names[kind]
    return "TEXT"


def refuse_broken_words(words: Sequence[str]) -> None:
    """ValueError if a word is not UTF-8; Python keeps such bytes as lone surrogates."""
    for number, word in enumerate(words, 1):
        if any("\ud800" <= character <= "\udfff" for character in word):
            decode_utf8(os.fsencode(word), f"argument {number}")


def make_output_safe() -> None:
    """Where the terminal's encoding lacks a character, print '?' rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def set_up_logging(verbose: int) -> None:
    """Log to standard error: warnings, with -v what limner does, with -vv everything."""
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    levels = [logging.WARNING, logging.INFO, logging.DEBUG]
    logging.getLogger("limner").setLevel(levels[min(verbose, 2)])
