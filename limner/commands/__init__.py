"""The command line: `limner VERB [settings.yaml] key=value ...`.

Only the chosen verb is imported, so that `limner --help` comes at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

#: Every verb and what `limner --help` says of it, so that help imports none of them.
COMMANDS = {
    "pull": "Download a model, or list those that can be had",
    "info": "What a model is made of, and the memory and arithmetic it takes",
    "data": "Turn texts into shards of tokens to train on, or say what such a folder holds",
    "doctor": "Say before a long run whether it will fit and learn what it should",
    "pretrain": "Train a model from raw text",
    "scale": "Train a grid of small runs, fit scaling laws to them, or plan a large run by a law",
    "generate": "Answer a prompt, or continue a text",
    "chat": "Talk with a model",
    "embed": "Turn texts into vectors, or say how alike they are",
    "fill-mask": "Fill the blanks of a text",
    "translate": "Turn a text into another: translation, summary, answer",
    "transcribe": "Write down what is said in a WAV file, with a model such as Whisper",
    "tokenize": "Show how a text is cut into tokens",
    "tokenizer": "Train a tokenizer on texts, or compare several on one",
    "serve": "Serve models to the field's clients over HTTP",
    "keys": "Create, list or revoke API keys for the server",
    "bench": "How fast a model runs on this machine, beside the most that it could",
    "quantize": "Write a model with fewer bits a weight, and say what that costs",
    "convert": "Turn a model into a folder for transformers or a GGUF file for llama.cpp",
}

USAGE = """\
Usage: limner COMMAND [SETTINGS.yaml] [ARGUMENT]... [--FLAG VALUE]... [KEY=VALUE]...

Commands:
{commands}

Every setting of a command can be given as a flag, as KEY=VALUE, or in a YAML file.
Text that begins with a dash or looks like KEY=VALUE goes after a bare --.

  limner COMMAND --help   its arguments and settings
  limner --version        the version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 is success, 2 a mistake of the user or a missing thing (one line on standard error), 130 an
    interruption by Ctrl-C, 141 a reader that went away.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return run(words)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python would complain once more when it flushes standard output on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        if "--traceback" in words or os.environ.get("LIMNER_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def run(words: Sequence[str]) -> int:
    """Do what the words say; ValueError or OSError if they, or the world, do not allow it."""
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0
    if words[0] in ("--version", "-V"):
        from limner import __version__

        print(f"limner {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise ValueError(unknown_command(words[0]))
    from limner.commands.command_line import run_command

    return run_command(words[0], words[1:])


def usage() -> str:
    """The text of `limner --help`."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return USAGE.format(commands="\n".join(lines))


def unknown_command(word: str) -> str:
    """What to say of a verb that does not exist."""
    from limner.config import nearest

    return f"unknown command '{word}'{nearest(word, COMMANDS)}"


def one_line(error: ValueError | OSError) -> str:
    """The message of an error, in one line and without error numbers."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split())
