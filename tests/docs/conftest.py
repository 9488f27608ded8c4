import pytest

from limner.checkpoints.catalogue import CATALOGUE
from tests.docs.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    """A cache folder in which every model of the catalogue that is a GGUF file is a tiny one."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_CACHE", str(cache))
        paths = [entry.path for entry in CATALOGUE if entry.member.endswith(".gguf")]
    for path in paths:
        path.parent.mkdir(parents=True)
        write_tiny_model(path)
    return cache
