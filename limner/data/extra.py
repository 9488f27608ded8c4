"""Libraries that only some of the data room needs, imported when they are."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """A module of an extra.

    Raises ValueError that says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{purpose} needs {error.name}: pip install 'limner[{extra}]' brings it"
        ) from None
