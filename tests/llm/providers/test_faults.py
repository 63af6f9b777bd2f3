"""What goes wrong between a request and its reply ends as the right kind of failure, in time."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from llm_trader.llm.config import ProviderName
from llm_trader.llm.providers import sdk_connection
from llm_trader.llm.providers.protocol import LlmReply, ProviderError
from tests.llm.providers.connections import PROVIDERS, connected, request_of
from tests.llm.stub.faults import (
    Body,
    Cut,
    Drip,
    Drop,
    Event,
    Fault,
    Hang,
    Late,
    Status,
    error_body,
)
from tests.llm.stub.server import TEST_KEY, StubServer

each_provider = pytest.mark.parametrize("provider", PROVIDERS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])
# The SDKs pause for half a second and more, unless they are told for how long.
SOON = {"retry-after-ms": "5"}
BODIES = [
    b"<html>Bad gateway</html>",
    b'{"unexpected": true}',
    b"[1, 2]",
    b'"LONG"',
    b"null",
    b"",
    b"\xff\xfe",
    b'data: {"unexpected": true}\n\n',
    b'event: message_start\ndata: {"type": "message_start"}\n\n',
    b'data: {"type": "response.completed"}\n\n',
    b"event: message_start\ndata: {broken\n\n",
    b"[" * 100_000,
    b"event: message_start\ndata: " + b"[" * 100_000 + b"\n\n",
]


async def outcome(
    stub: StubServer,
    provider: ProviderName,
    *faults: Fault | None,
    deadline_s: float = 10.0,
    **settings: Any,
) -> LlmReply | ProviderError:
    """The end of one call, which is in time."""
    stub.script(*faults)
    async with (
        connected(stub, provider, **settings) as (connection, model),
        asyncio.timeout(deadline_s + 1),
    ):
        try:
            return await connection.complete(request_of(model), deadline_s=deadline_s)
        except ProviderError as error:
            return error


def ending(end: LlmReply | ProviderError) -> tuple[str, int, int]:
    """Its kind, its attempts, and how many of them the provider may charge."""
    kind = end.kind if isinstance(end, ProviderError) else "reply"
    return kind, end.attempts, end.unanswered


@each_provider
@streamed_or_not
@pytest.mark.parametrize("status", [429, 500, 529])
async def test_an_error_that_passes_is_tried_again_and_costs_nothing(
    stub: StubServer, provider: ProviderName, stream: bool, status: int
):
    fault = Status(status, headers=SOON)
    end = await outcome(stub, provider, fault, fault, stream=stream)
    assert ending(end) == ("reply", 3, 0)
    assert stub.arrivals == 3


@each_provider
@pytest.mark.parametrize(
    ("status", "kind"), [(429, "rate_limited"), (500, "overloaded"), (529, "overloaded")]
)
async def test_an_error_that_stays_ends_the_call_after_the_retries(
    stub: StubServer, provider: ProviderName, status: int, kind: str
):
    end = await outcome(stub, provider, *[Status(status, headers=SOON)] * 9)
    assert ending(end) == (kind, 4, 0)
    assert stub.arrivals == 4
    assert str(status) in str(end)


async def test_the_pause_that_a_provider_asks_for_is_kept(stub: StubServer):
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    end = await outcome(stub, "openai", Status(429, retry_after_s=0.3))
    assert ending(end) == ("reply", 2, 0)
    assert loop.time() - start_s >= 0.3


@each_provider
async def test_a_pause_beyond_the_deadline_ends_as_what_caused_it(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Status(429, retry_after_s=30), deadline_s=0.3)
    assert ending(end) == ("rate_limited", 1, 0)
    assert "no time for another attempt within 0.3 s" in str(end)


@each_provider
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Status(400), "bad_request"),
        (Status(401), "credentials"),
        (Status(402), "credentials"),
        (Status(403), "credentials"),
        (Status(404), "unknown_model"),
        (Status(413), "bad_request"),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
async def test_an_error_that_stays_is_not_tried_again(
    stub: StubServer, provider: ProviderName, fault: Fault, kind: str
):
    assert ending(await outcome(stub, provider, fault)) == (kind, 1, 0)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_a_model_that_is_gone_is_named(stub: StubServer, provider: ProviderName):
    stub.retired = frozenset(("claude-haiku-5-5", "gpt-6-luna"))
    try:
        end = await outcome(stub, provider)
    finally:
        stub.retired = frozenset()
    assert ending(end) == ("unknown_model", 1, 0)
    assert "change llm.model" in str(end)


@each_provider
async def test_an_address_without_such_an_interface_is_no_unknown_model(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Status(404, body=b'{"detail": "Not Found"}'))
    assert ending(end) == ("bad_reply", 1, 0)
    assert "check that llm.base_url" in str(end)


async def test_openais_400_for_an_unknown_model_is_told_by_its_code(stub: StubServer):
    body = error_body("responses", 400, "The requested model does not exist.", "model_not_found")
    end = await outcome(stub, "openai", Status(400, body=body))
    assert ending(end) == ("unknown_model", 1, 0)


async def test_an_account_without_money_is_no_matter_of_the_rate(stub: StubServer):
    body = error_body("responses", 429, "You exceeded your current quota.", "insufficient_quota")
    end = await outcome(stub, "openai", Status(429, body=body), max_retries=0)
    assert ending(end) == ("credentials", 1, 0)


@each_provider
async def test_a_connection_that_is_dropped_before_the_answer_is_tried_again(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Drop())
    assert ending(end) == ("reply", 2, 1)


@each_provider
async def test_dropped_connections_end_the_call_and_each_may_be_charged(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Drop(), Drop(), max_retries=1)
    assert ending(end) == ("connection", 2, 2)


@each_provider
async def test_a_stream_that_is_dropped_in_its_midst_is_a_failure_of_the_connection(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Drop(after_parts=2))
    assert ending(end) == ("connection", 1, 1)


@each_provider
async def test_a_whole_reply_that_is_dropped_in_its_midst_is_asked_for_again(
    stub: StubServer, provider: ProviderName
):
    end = await outcome(stub, provider, Drop(after_parts=0), stream=False)
    assert ending(end) == ("reply", 2, 1)


@each_provider
@streamed_or_not
async def test_a_provider_that_stays_silent_is_given_up(
    stub: StubServer, provider: ProviderName, stream: bool
):
    end = await outcome(stub, provider, Hang(), timeout_s=0.1, max_retries=0, stream=stream)
    assert ending(end) == ("timeout", 1, 1)


@each_provider
async def test_a_stream_that_falls_silent_is_given_up(stub: StubServer, provider: ProviderName):
    end = await outcome(stub, provider, Hang(after_parts=2), timeout_s=0.1)
    assert ending(end) == ("timeout", 1, 1)


@each_provider
@streamed_or_not
async def test_bytes_that_drip_do_not_outlast_the_deadline(
    stub: StubServer, provider: ProviderName, stream: bool
):
    drip = Drip(pause_s=0.02)
    end = await outcome(stub, provider, drip, timeout_s=5.0, deadline_s=0.25, stream=stream)
    assert ending(end) == ("timeout", 1, 1)
    assert "no complete reply within 0.25 s" in str(end)


@each_provider
async def test_a_reply_after_the_deadline_is_a_timeout(stub: StubServer, provider: ProviderName):
    end = await outcome(stub, provider, Late(5.0), deadline_s=0.2)
    assert ending(end) == ("timeout", 1, 1)


@each_provider
@streamed_or_not
async def test_a_body_of_something_else_is_no_reply(
    stub: StubServer, provider: ProviderName, stream: bool
):
    stub.script(*map(Body, BODIES))
    async with connected(stub, provider, stream=stream) as (connection, model):
        for body in BODIES:
            with pytest.raises(ProviderError) as raised:
                await connection.complete(request_of(model), deadline_s=10)
            kind, attempts, unanswered = ending(raised.value)
            # A stream of nothing that is known is one without its end.
            assert kind == "bad_reply" or (kind == "connection" and stream), body
            assert (attempts, unanswered) == (1, 1)


@each_provider
@streamed_or_not
async def test_a_body_without_end_does_not_fill_the_memory(
    stub: StubServer, provider: ProviderName, stream: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sdk_connection, "MOST_BYTES", 100_000)
    endless = Body(b": nothing to say\n" * 20_000)
    end = await outcome(stub, provider, endless, stream=stream, max_retries=0)
    assert ending(end) == ("bad_reply", 1, 1)
    assert "longer than 100000 bytes" in str(end)


@each_provider
@streamed_or_not
async def test_a_page_of_a_proxy_is_no_reply(
    stub: StubServer, provider: ProviderName, stream: bool
):
    page = Body(b"<html>Please log in</html>", "text/html")
    kind, attempts, _ = ending(await outcome(stub, provider, page, stream=stream))
    assert kind in ("bad_reply", "connection")
    assert attempts == 1


@each_provider
@pytest.mark.parametrize("parts", [0, 1, 3])
async def test_a_stream_that_ends_early_is_no_reply(
    stub: StubServer, provider: ProviderName, parts: int
):
    assert ending(await outcome(stub, provider, Cut(parts))) == ("connection", 1, 1)


@each_provider
async def test_a_broken_event_is_no_reply(stub: StubServer, provider: ProviderName):
    event = Event(b"event: message_delta\ndata: {broken\n\n")
    assert ending(await outcome(stub, provider, event)) == ("bad_reply", 1, 1)


@pytest.mark.parametrize(
    ("provider", "event", "kind"),
    [
        (
            "anthropic",
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded",
        ),
        (
            "openai",
            {"type": "error", "sequence_number": 1, "code": "rate_limit_exceeded", "message": "x"},
            "rate_limited",
        ),
        (
            "openai",
            {
                "type": "response.failed",
                "sequence_number": 1,
                "response": {
                    "id": "resp_stub",
                    "status": "failed",
                    "error": {"code": "server_error", "message": "x"},
                    "output": [],
                    "usage": None,
                },
            },
            "overloaded",
        ),
        ("openai-compatible", {"error": {"message": "out of memory", "code": 500}}, "overloaded"),
    ],
    ids=["anthropic", "openai", "failed", "compatible"],
)
async def test_an_error_in_the_midst_of_a_stream_is_told_by_its_code(
    stub: StubServer, provider: ProviderName, event: dict[str, Any], kind: str
):
    name = f"event: {event['type']}\n" if "type" in event else ""
    data = f"{name}data: {json.dumps(event)}\n\n".encode()
    assert ending(await outcome(stub, provider, Event(data))) == (kind, 1, 1)


async def test_an_address_where_nobody_listens_costs_nothing(stub: StubServer):
    async with connected(stub, "openai", max_retries=0) as (connection, model):
        connection.client.base_url = "http://127.0.0.1:9/v1"  # type: ignore[attr-defined]
        with pytest.raises(ProviderError) as raised:
            await connection.complete(request_of(model), deadline_s=5)
    assert ending(raised.value) == ("connection", 1, 0)


async def test_a_redirect_is_not_followed_with_the_key(stub: StubServer):
    away = Status(307, body=b"", headers={"location": f"{stub.url}/elsewhere"})
    assert ending(await outcome(stub, "anthropic", away))[0] == "bad_reply"
    assert stub.arrivals == 1


@each_provider
async def test_the_key_is_in_no_message(stub: StubServer, provider: ProviderName):
    body = error_body("messages", 401, f"invalid key {TEST_KEY}")
    end = await outcome(stub, provider, Status(401, body=body), api_key_env="OPENAI_API_KEY")
    assert isinstance(end, ProviderError)
    assert TEST_KEY not in f"{end} {end.details}"


@each_provider
async def test_the_key_is_in_no_line_of_the_log(
    stub: StubServer, provider: ProviderName, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    fault = Status(500, headers=SOON)
    await outcome(stub, provider, fault, Status(401), api_key_env="OPENAI_API_KEY")
    assert stub.arrivals == 2
    assert "Retrying" in caplog.text
    assert TEST_KEY not in caplog.text


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_the_attempts_of_many_calls_at_once_are_counted_apart(
    stub: StubServer, provider: ProviderName
):
    stub.script(*[Status(500, headers=SOON)] * 7, *[Drop()] * 2)
    async with connected(stub, provider) as (connection, model):
        replies = await asyncio.gather(
            *(connection.complete(request_of(model), deadline_s=20) for _ in range(12))
        )
    assert sum(reply.attempts for reply in replies) == stub.arrivals == 12 + 9
    assert sum(reply.unanswered for reply in replies) == 2


async def test_a_cancelled_call_is_cancelled(stub: StubServer):
    stub.script(Hang())
    async with connected(stub, "openai") as (connection, model):
        call = asyncio.create_task(connection.complete(request_of(model), deadline_s=10))
        while not stub.arrivals:  # noqa: ASYNC110  it is counted in another thread
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
