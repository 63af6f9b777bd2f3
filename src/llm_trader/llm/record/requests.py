"""The hash by which a request is found again."""

from __future__ import annotations

import hashlib

import msgspec

from llm_trader.llm.providers.protocol import LlmRequest

_FIELDS = sorted(msgspec.structs.fields(LlmRequest), key=lambda field: field.name)


def canonical_json(request: LlmRequest) -> bytes:
    """Without fields that have their default, so that a field which is added later changes no hash.

    The keys of a schema keep their order, in which a model writes its reply.
    """
    values = ((field.name, field.default, getattr(request, field.name)) for field in _FIELDS)
    return msgspec.json.encode({name: value for name, default, value in values if value != default})


def request_hash(request: LlmRequest) -> str:
    """The SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(request)).hexdigest()
