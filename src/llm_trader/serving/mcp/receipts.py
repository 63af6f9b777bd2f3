"""Receipts: what an answer was made from, so that anybody with the data can make it again."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llm_trader.timeframe import Millis

# Whole numbers beyond it have no exact double, which is what other languages read.
_EXACT = float(1 << 53)


class Receipt(msgspec.Struct, frozen=True):
    """`llm-trader receipt verify` makes the answer again and compares.

    `arguments` are complete: a time that was left out stands here. `search` are the server's
    settings of searches. `digest` is of the answer without its receipt.
    """

    tool: Annotated[str, Meta(description="The tool that was called.")]
    arguments: Annotated[dict[str, Any], Meta(description="Its arguments, with the time.")]
    as_of: Annotated[
        Millis | None,
        Meta(description="What was known by then was used, and nothing later; UTC milliseconds."),
    ]
    search: Annotated[dict[str, Any], Meta(description="The server's settings of searches.")]
    versions: Annotated[
        dict[str, str | None],
        Meta(description="Versions of program, features, vectors, models and calibration."),
    ]
    reproducible: Annotated[
        bool,
        Meta(
            description="Whether store and index give the same answer later. What a server holds "
            "at a moment is not kept."
        ),
    ]
    digest: Annotated[str, Meta(description="SHA-256 of the answer: `sha256:` and hex digits.")]


def digest_of(answer: Any) -> str:
    """The digest of an answer, as a struct or as what a program read from JSON."""
    built = msgspec.to_builtins(answer)
    content = {name: value for name, value in built.items() if name != "receipt"}
    text = msgspec.json.encode(_canonical(content), order="sorted")
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _canonical(value: Any) -> Any:
    """Equal numbers in one form: other programs write 1.0 as 1."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
