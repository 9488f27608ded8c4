"""Libraries that only some of the data room needs, imported when they are."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


def import_ray(part: str, purpose: str) -> Any:
    """A part of Ray, such as "ray.data"; ValueError if it is not installed."""
    # Ray reports to its makers unless this is set before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import_extra("ray", "cluster", purpose)
    return import_extra(part, "cluster", purpose)


@contextmanager
def cluster(part: str, purpose: str) -> Iterator[Any]:
    """Ray with a part of it, for as long as the context lasts.

    The cluster is the one at RAY_ADDRESS, or one of this machine's cores.

    Raises ValueError if Ray is not installed.
    """
    import_ray(part, purpose)
    ray = import_ray("ray", purpose)
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
