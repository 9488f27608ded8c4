"""The page of architectures says what the families' configs say."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from limner.models.families import FAMILIES

SCRIPT = Path(__file__).parents[2] / "docs" / "architectures.py"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("architectures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def configs(writer) -> dict[str, Any]:
    """A config of each model type."""
    found: dict[str, Any] = writer.configs()
    return found


def test_the_page_and_its_drawing_are_up_to_date(writer, configs):
    assert writer.PAGE.read_text(encoding="utf-8") == writer.page(configs)
    assert writer.DRAWING.read_text(encoding="utf-8") == writer.drawing(configs)


def test_every_model_type_has_a_row(writer):
    rows = [line.split("|")[1].strip() for line in writer.PAGE.read_text().splitlines()[17:]]
    assert rows == sorted(FAMILIES)
