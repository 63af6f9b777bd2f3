"""What the stand-in for a model says. Deterministic: equal requests have equal replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class StubRequest:
    """A request as all three interfaces have it in common, and its body."""

    api: Literal["responses", "chat", "messages"]
    model: str
    system: str
    messages: list[tuple[str, str]]
    schema: dict[str, Any] | None
    max_tokens: int
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return self.messages[-1][1]


@dataclass(frozen=True, slots=True)
class StubReply:
    text: str
    finish: Literal["complete", "truncated", "refused"] = "complete"
    output_tokens: int | None = None
    reasoning_tokens: int = 0


# Given a request, what the model says: the text alone, or with how it ended.
Decide = Callable[[StubRequest], str | StubReply]


def by_schema(request: StubRequest) -> str:
    """JSON of the schema, its choices drawn from the digest of the prompt; else a sentence."""
    if request.schema is None:
        return "HOLD, as nobody told me how to answer."
    digest = hashlib.sha256((request.system + request.prompt).encode()).digest()
    return json.dumps(_value(request.schema, int.from_bytes(digest[:4], "big")))


def _value(schema: dict[str, Any], seed: int) -> Any:
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return None if len(kinds) < len(schema["anyOf"]) else _value(kinds[0], seed)
    match schema.get("type"):
        case "object":
            return {name: _value(one, seed) for name, one in schema["properties"].items()}
        case "array":
            return [_value(schema["items"], seed)]
        case "number":
            return round(seed % 1000 / 1000, 3)
        case "integer":
            return seed % 100
        case "boolean":
            return bool(seed % 2)
        case "string":
            return f"reason {seed % 1000}"
    return None
