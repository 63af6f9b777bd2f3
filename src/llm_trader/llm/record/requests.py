"""The hash by which a request is found again."""

from __future__ import annotations

import hashlib

import msgspec

from llm_trader.llm.providers.protocol import LlmRequest

# Sorted, so that the order of a schema's keys, or of a struct's fields, is no other request.
_CANONICAL = msgspec.json.Encoder(order="sorted")


def canonical_json(request: LlmRequest) -> bytes:
    return _CANONICAL.encode(request)


def request_hash(request: LlmRequest) -> str:
    """The SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(request)).hexdigest()
