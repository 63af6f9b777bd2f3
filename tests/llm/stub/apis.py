"""What the three interfaces take and give, as of November 2026. No I/O here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.llm.stub.replies import StubReply, StubRequest

Api = Literal["responses", "chat", "messages"]
PATHS: Final[dict[str, Api]] = {
    "/v1/responses": "responses",
    "/v1/chat/completions": "chat",
    "/v1/messages": "messages",
}
_KNOWN: Final[dict[Api, set[str]]] = {
    "responses": {
        *("model", "input", "instructions", "max_output_tokens", "store", "stream", "text"),
        *("temperature", "reasoning", "prompt_cache_key", "prompt_cache_options", "service_tier"),
    },
    "chat": {
        *("model", "messages", "max_tokens", "stream", "stream_options", "response_format"),
        *("temperature", "reasoning_effort"),
    },
    "messages": {
        *("model", "messages", "max_tokens", "stream", "system", "thinking", "output_config"),
    },
}


class RejectedError(Exception):
    """The provider would answer with status 400."""


@dataclass(slots=True)
class PrefixCache:
    """Which marked beginnings of prompts were seen. Tokens are counted as four bytes each."""

    seen: set[str] = field(default_factory=set)

    def counts(self, prefix: str | None) -> tuple[int, int]:
        """Tokens read from the cache, and written to it."""
        if prefix is None:
            return 0, 0
        known, tokens = prefix in self.seen, tokens_of(prefix)
        self.seen.add(prefix)
        return (tokens, 0) if known else (0, tokens)


def tokens_of(text: str) -> int:
    return -(-len(text.encode()) // 4)


def read_request(api: Api, body: dict[str, Any]) -> StubRequest:
    if unknown := sorted(body.keys() - _KNOWN[api]):
        raise RejectedError(f"Unknown parameter: '{unknown[0]}'.")
    system, messages = _texts(api, body)
    schema = _schema(api, body)
    if schema is not None:
        _check_schema(api, schema)
    if api == "responses" and "temperature" in body:
        thinks = not body["model"].startswith("gpt-4")
        if thinks and body.get("reasoning", {}).get("effort") != "none":
            raise RejectedError("Unsupported parameter: 'temperature' is not supported.")
    key = "max_output_tokens" if api == "responses" else "max_tokens"
    return StubRequest(api, body["model"], system, messages, schema, body[key], body)


def marked_prefix(request: StubRequest) -> str | None:
    """The beginning that the request asks to cache."""
    body = request.body
    if request.api == "messages":
        marked = any("cache_control" in block for block in body.get("system", []))
    elif request.api == "responses":
        content = body["input"][0]["content"]
        explicit = body.get("prompt_cache_options", {}).get("mode") == "explicit"
        marked = not explicit or any("prompt_cache_breakpoint" in part for part in content)
    else:
        return None
    return request.system if marked else None


def _texts(api: Api, body: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    if api == "messages":
        system = "".join(block["text"] for block in body.get("system", []))
        return system, [(one["role"], _text(one["content"])) for one in body["messages"]]
    rows = body["input"] if api == "responses" else body["messages"]
    first, *rest = [(one["role"], _text(one["content"])) for one in rows]
    if first[0] not in ("system", "developer"):
        raise RejectedError("this stub wants the instructions first")
    return first[1], rest


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def _schema(api: Api, body: dict[str, Any]) -> dict[str, Any] | None:
    if api == "messages":
        found = body.get("output_config", {}).get("format", {}).get("schema")
    elif api == "responses":
        found = body.get("text", {}).get("format", {}).get("schema")
    else:
        found = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return found if isinstance(found, dict) else None


def _check_schema(api: Api, schema: dict[str, Any]) -> None:
    """Strict schemas require all properties and take no others; Anthropic takes no bounds."""
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            raise RejectedError("'additionalProperties' is required to be false.")
        if sorted(schema.get("required", [])) != sorted(schema["properties"]):
            raise RejectedError("'required' is required to include every key in properties.")
        for inner in schema["properties"].values():
            _check_schema(api, inner)
    for inner in schema.get("anyOf", []):
        _check_schema(api, inner)
    if api == "messages" and schema.keys() & {"minimum", "maximum", "maxLength", "pattern"}:
        raise RejectedError("output_config.format.schema: bounds are not supported")


def reply_parts(request: StubRequest, reply: StubReply, cached: int, written: int) -> list[bytes]:
    """The body: one part, or the events of a stream."""
    output = reply.output_tokens
    output = tokens_of(reply.text) + reply.reasoning_tokens if output is None else output
    plain = tokens_of(request.system + "".join(text for _, text in request.messages))
    counts = _Counts(plain, cached, written, output, reply.reasoning_tokens)
    whole, events = {
        "responses": _responses,
        "chat": _chat,
        "messages": _messages,
    }[request.api](request, reply, counts)
    if request.body.get("stream"):
        return [*events]
    return [json.dumps(whole).encode()]


@dataclass(frozen=True, slots=True)
class _Counts:
    input: int
    cached: int
    written: int
    output: int
    reasoning: int


_Made = tuple[dict[str, Any], Iterator[bytes]]


def _sse(data: dict[str, Any], named: bool = True) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def _pieces(text: str) -> list[str]:
    return [text[start : start + 16] for start in range(0, len(text), 16)]


def _responses(request: StubRequest, reply: StubReply, counts: _Counts) -> _Made:
    refused = reply.finish == "refused"
    part = (
        {"type": "refusal", "refusal": reply.text}
        if refused
        else {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    )
    message = {
        "type": "message",
        "id": "msg_stub",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    thinking = {"type": "reasoning", "id": "rs_stub", "summary": []}
    cut = reply.finish == "truncated"
    whole: dict[str, Any] = {
        "id": "resp_stub",
        "object": "response",
        "created_at": 1,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": request.model,
        "output": [thinking, message] if reply.text else [thinking],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": counts.input,
            "input_tokens_details": {
                "cached_tokens": counts.cached,
                "cache_write_tokens": counts.written,
            },
            "output_tokens": counts.output,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.input + counts.output,
        },
    }

    def events() -> Iterator[bytes]:
        begun = whole | {"status": "in_progress", "output": [], "usage": None}
        yield _sse({"type": "response.created", "sequence_number": 0, "response": begun})
        for number, piece in enumerate(_pieces(reply.text), 1):
            yield _sse(
                {
                    "type": "response.refusal.delta" if refused else "response.output_text.delta",
                    "sequence_number": number,
                    "item_id": "msg_stub",
                    "output_index": 1,
                    "content_index": 0,
                    "delta": piece,
                    "logprobs": [],
                }
            )
        last = f"response.{whole['status']}"
        yield _sse({"type": last, "sequence_number": 9999, "response": whole})

    return whole, events()


def _chat(request: StubRequest, reply: StubReply, counts: _Counts) -> _Made:
    finish = {"complete": "stop", "truncated": "length", "refused": "stop"}[reply.finish]
    field_name = "refusal" if reply.finish == "refused" else "content"
    usage = {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": counts.input + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }
    common = {"id": "chatcmpl-stub", "created": 1, "model": request.model}
    said = {"role": "assistant", "content": None, "refusal": None} | {field_name: reply.text}
    choice = {"index": 0, "message": said, "finish_reason": finish, "logprobs": None}
    whole = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}

    def events() -> Iterator[bytes]:
        chunk = {**common, "object": "chat.completion.chunk", "usage": None}
        for piece in _pieces(reply.text):
            delta = {"index": 0, "delta": {field_name: piece}, "finish_reason": None}
            yield _sse({**chunk, "choices": [delta]}, named=False)
        end = {"index": 0, "delta": {}, "finish_reason": finish}
        yield _sse({**chunk, "choices": [end]}, named=False)
        if request.body.get("stream_options", {}).get("include_usage"):
            yield _sse({**chunk, "choices": [], "usage": usage}, named=False)
        yield b"data: [DONE]\n\n"

    return whole, events()


def _messages(request: StubRequest, reply: StubReply, counts: _Counts) -> _Made:
    reasons = {"complete": "end_turn", "truncated": "max_tokens", "refused": "refusal"}
    usage = {
        "input_tokens": counts.input - counts.cached - counts.written,
        "cache_read_input_tokens": counts.cached,
        "cache_creation_input_tokens": counts.written,
        "output_tokens": counts.output,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
    }
    thinking = {"type": "thinking", "thinking": "", "signature": "stub"}
    blocks = [thinking, {"type": "text", "text": reply.text}] if reply.text else [thinking]
    whole: dict[str, Any] = {
        "id": "msg_stub",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": blocks,
        "stop_reason": reasons[reply.finish],
        "stop_sequence": None,
        "usage": usage,
    }

    def events() -> Iterator[bytes]:
        begun = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
        yield _sse({"type": "message_start", "message": whole | begun})
        yield _sse({"type": "ping"})
        for index, block in enumerate(blocks):
            empty = block | ({"text": ""} if block["type"] == "text" else {})
            yield _sse({"type": "content_block_start", "index": index, "content_block": empty})
            for piece in _pieces(block.get("text", "")):
                delta = {"type": "text_delta", "text": piece}
                yield _sse({"type": "content_block_delta", "index": index, "delta": delta})
            yield _sse({"type": "content_block_stop", "index": index})
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        known = {
            "output_tokens": counts.output,
            "output_tokens_details": usage["output_tokens_details"],
        }
        yield _sse({"type": "message_delta", "delta": end, "usage": known})
        yield _sse({"type": "message_stop"})

    return whole, events()
