"""Requests that schemathesis makes of `schemas/openapi.json`, and what a running server answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings

from tests.cli.corridor import Corridor
from tests.serving.fuzz import replies
from tests.serving.server_process import Server, server_of

ROOT = Path(__file__).resolve().parents[2]
ROUTES = re.compile(r'\b(?:page|documents|WebSocketRoute)\(\s*"(/[\w./]+)"')
DOCUMENT = json.loads((ROOT / "schemas/openapi.json").read_text())
MODES = ["positive", "negative"]
# A page has nothing that could be wrong.
OPERATIONS = [
    pytest.param(path, verb, mode, id=f"{path}, {mode}")
    for path, verbs in DOCUMENT["paths"].items()
    for verb, operation in verbs.items()
    for mode in (MODES if "requestBody" in operation else MODES[:1])
]


def no_fault_of_the_server(context: Any, response: Any, case: Any) -> bool | None:
    """504 is a right answer to a call that names a timeout, and no other status from 500 is one."""
    if response.status_code == 504 and names_a_timeout(case.body):
        return None
    from schemathesis.checks import not_a_server_error

    return not_a_server_error(context, response, case)


def names_a_timeout(body: Any) -> bool:
    """Whether a document is one call with a timeout of its own; a batch is 200 whatever it has."""
    params = body.get("params") if isinstance(body, dict) else None
    return isinstance(params, dict) and params.get("timeout_ms") is not None


@pytest.fixture(scope="module")
def schema() -> Any:
    import schemathesis

    return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def server(corridor: Corridor) -> Iterator[Server]:
    doors = {"LLM_TRADER_SERVING__GRAPHQL": "true", "LLM_TRADER_SERVING__MCP": "true"}
    with server_of(corridor, settings=doors) as running:
        yield running
        assert not [line for line in running.log if line.get("level") == "error"]


@pytest.mark.parametrize(("path", "verb", "mode"), OPERATIONS)
def test_every_path_answers_as_it_is_described(
    server: Server, schema: Any, path: str, verb: str, mode: str
) -> None:
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi import checks as described

    operation = schema[path][verb]
    # The data are old, so the server is not ready and says so.
    checks = [
        described.status_code_conformance,
        described.content_type_conformance,
        described.response_schema_conformance,
    ]
    if path != "/readyz":
        checks.append(no_fault_of_the_server)

    @settings(suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def answers(case: Any) -> None:
        response = case.call(base_url=f"http://127.0.0.1:{server.http_port}")
        case.validate_response(response, checks=checks)
        if path == "/rpc" and response.content:
            replies.check(response.content)

    answers()


CALL = {"jsonrpc": "2.0", "method": "rag.stats", "id": 1}
WITH_TIMEOUT = {**CALL, "params": {"timeout_ms": 1}}


@pytest.mark.parametrize(
    ("status", "body", "is_right"),
    [
        (504, WITH_TIMEOUT, True),
        (504, CALL, False),
        (504, {**CALL, "params": {"timeout_ms": None}}, False),
        (504, {**CALL, "params": {"query_config": {"timeout_ms": 1}}}, False),
        (504, [WITH_TIMEOUT], False),
        (500, WITH_TIMEOUT, False),
        (503, WITH_TIMEOUT, False),
        (200, CALL, True),
    ],
)
def test_504_is_right_for_a_single_call_with_a_timeout_alone(
    schema: Any, status: int, body: Any, is_right: bool
) -> None:
    from schemathesis.core.failures import FailureGroup

    response = requests.Response()
    response.status_code, response._content = status, b"{}"
    response.request = requests.Request("POST", "http://127.0.0.1/rpc", json=body).prepare()
    case = schema["/rpc"]["post"].Case(body=body, media_type="application/json")
    with nullcontext() if is_right else pytest.raises(FailureGroup):
        case.validate_response(response, checks=[no_fault_of_the_server])


def test_every_path_of_the_server_is_described() -> None:
    routed = {
        path
        for source in ("app/http_door.py", "rpc/http/app.py")
        for path in ROUTES.findall((ROOT / "src/llm_trader" / source).read_text())
    }
    assert routed == {*DOCUMENT["paths"], "/ws"}  # which OpenAPI cannot describe
