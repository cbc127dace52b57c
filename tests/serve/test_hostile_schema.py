"""The server against its own OpenAPI document: made-up requests, good and bad, are answered as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.sending import get
from tests.serve.stub import Stub, served

schemathesis = pytest.importorskip("schemathesis", reason="it needs Python 3.11")


EXAMPLES = 60


def document(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Stub()) as found:
        yield found


def test_the_document_describes_every_address(address: str) -> None:
    status, _, body = get(address, "/openapi.json")
    document = json.loads(body)
    assert (status, document["openapi"]) == (200, "3.1.0")
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{id}",
        "/health",
        "/ready",
        "/metrics",
    }
    request = document["components"]["schemas"]["ChatCompletionRequest"]
    assert request["required"] == ["model", "messages"] and request["additionalProperties"] is False


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_the_server_keeps_to_its_document(address: str, mode: str) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    seen: dict[str, set[int]] = {}
    for operation in document(address).get_all_operations():
        found = operation.ok()
        if mode == "NEGATIVE" and not found.body:
            continue  # there is nothing to get wrong

        @seed(0)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=[*HealthCheck],
            phases=[Phase.generate],
        )
        @given(case=found.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def keeps(case: Any) -> None:
            answer = case.call()
            # an address that the schema lets through need not lead to a picture: good data may be refused
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])
            seen.setdefault(case.operation.label, set()).add(answer.status_code)

        keeps()
    assert not {status for statuses in seen.values() for status in statuses} & {500, 502}
    assert 400 in seen["POST /v1/chat/completions"]
