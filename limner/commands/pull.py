"""`limner pull`: download a model, or list those that can be had."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from limner.checkpoints import catalogue
from limner.checkpoints.disk import megabytes
from limner.commands.command_line import CommandSettings
from limner.commands.terminal import progress_bar


class Command(CommandSettings):
    """Download a model, or list those that can be had.

    Without a name it lists the catalogue. A model that is here already is not fetched again. Prints
    where the model is.
    """

    positional: ClassVar[tuple[str, ...]] = ("name",)

    name: str | None = None
    """a name of the catalogue, or OWNER/REPOSITORY of the hub"""
    force: bool = False
    """fetch it again even if it is here"""


def run(settings: Command) -> None:
    """Fetch, or list."""
    if settings.name is None:
        print_catalogue()
        return
    with progress_bar() as progress:
        report = partial(progress, "downloading") if progress else None
        path = catalogue.pull(settings.name, force=settings.force, progress=report)
    print(path)


def print_catalogue() -> None:
    """Every model of the catalogue: name, size, licence, and whether it is here."""
    for entry in catalogue.CATALOGUE:
        place = "here" if entry.path.exists() else "not here"
        print(f"{entry.name}  {megabytes(entry.wheel_bytes)}, {entry.licence}, {place}")
        print(f"    {entry.description}")
        print(f"    also called {', '.join(entry.aliases)}")
    print(f"\nAny OWNER/REPOSITORY of the hub works as well. Kept in {catalogue.cache_folder()}")
