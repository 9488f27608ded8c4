"""What /openapi.json promises is what the server does, whatever a client makes of it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import limner
from limner.language_model import Embedder
from limner.models.sentence import NormalizeConfig, PoolingConfig, SentenceEncoder
from limner.serving.application import ROUTES
from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [(route.method, route.path.replace(":path", "")) for route in ROUTES]
VECTORS = ("/v1/embeddings", "/v1/score", "/v1/rerank", "/v2/rerank")


@pytest.fixture(scope="module")
def described(tiny, alone, tmp_path_factory):
    """The description that a server of two models with short contexts gives of itself."""
    network = SentenceEncoder(alone.network, PoolingConfig(), (NormalizeConfig(),))
    models = {
        "tiny": lambda: limner.load(tiny, context=96),
        "vectors": lambda: Embedder("vectors", network, alone.tokenizer, 40),
    }
    folder = tmp_path_factory.mktemp("data")
    keys, kept = KeyStore(folder / "keys.sqlite"), ResponseStore(folder / "responses.sqlite")
    with running(Server(Loading(models), Serving(port=0), keys, kept)) as server:
        yield schemathesis.openapi.from_url(f"{server.address}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_reply_has_the_form_that_is_promised(described, method, path):
    operation = described[path][method]

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def check(case):
        if isinstance(case.body, dict) and "model" in case.body and path != "/v1/models/load":
            case.body["model"] = "vectors" if path in VECTORS else "tiny"
        case.call_and_validate(checks=CHECKS, timeout=20)

    check()
