"""Each test that asks for `variant` runs on every compiled variant that this processor can run."""

from __future__ import annotations

import pytest

from limner.kernels import library
from limner.kernels.build import VARIANTS


@pytest.fixture(params=[variant.name for variant in VARIANTS])
def variant(request):
    """Operators run on this variant for the length of the test."""
    if library.load(request.param) is None:
        pytest.skip(f"kernels for {request.param} are not built or cannot run here")
    with library.using(request.param):
        library.set_threads(2, pin=False)
        yield request.param
