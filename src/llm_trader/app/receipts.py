"""Makes the answer of a receipt again, from store and index, and compares."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from llm_trader.app.job import Job, blocking
from llm_trader.app.local_tools import local_parts
from llm_trader.app.server import ServerParts
from llm_trader.errors import InvalidInputError
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.errors import ErrorObject
from llm_trader.serving.mcp.calls import search_of
from llm_trader.serving.mcp.receipts import Receipt, digest_of
from llm_trader.serving.mcp.tools import TOOLS

_LONGEST_VALUE: Final = 60
# Where programs put an answer: the reply of JSON-RPC, the result of MCP.
_AROUND: Final = ("result", "structuredContent")
_NAMES: Final = tuple(tool.name for tool in TOOLS)

Outcome = Literal["same", "different", "changed", "not_kept"]


class Difference(msgspec.Struct, frozen=True):
    field: Annotated[str, Meta(description="Path of a value of the answer.")]
    answered: Annotated[str, Meta(description="What the answer says.")]
    now: Annotated[str, Meta(description="What store and index say now.")]


class ReceiptReport(msgspec.Struct, frozen=True):
    """`outcome`: `same`; `different` from what store and index say now; `changed`, as the answer is
    not the one that the receipt was made for; or `not_kept`, where only that can be checked.
    """

    outcome: Outcome
    receipt: Receipt
    made_again: Annotated[str | None, Meta(description="Digest of the answer made again.")]
    reason: Annotated[str | None, Meta(description="Why there is no answer now.")] = None
    versions: Annotated[
        dict[str, tuple[str | None, str | None]],
        Meta(description="Versions that are others now: then, and now."),
    ] = {}
    differences: Annotated[
        list[Difference], Meta(description="Values that differ, if the whole answer is there.")
    ] = []

    @property
    def passed(self) -> bool:
        return self.outcome in ("same", "not_kept")


class _Document(NamedTuple):
    receipt: Receipt
    answer: dict[str, Any] | None


@blocking
async def verify_receipt(job: Job, document: bytes) -> ReceiptReport:
    """Raises `InvalidInputError` for a document without a receipt."""
    receipt, answer = _read(document)
    if answer is not None and digest_of(answer) != receipt.digest:
        return ReceiptReport("changed", receipt, None)
    if not receipt.reproducible:
        return ReceiptReport("not_kept", receipt, None)
    settings = job.settings
    audit = msgspec.structs.replace(settings.audit, folder=None)
    serving = msgspec.structs.replace(settings.serving, min_matches=0)
    own = msgspec.structs.replace(settings, audit=audit, serving=serving)
    async with local_parts(own, job.environ, lambda: job.now_ms) as parts:
        return await _compared(parts, receipt, answer)


def _read(document: bytes) -> _Document:
    try:
        content = msgspec.json.decode(document)
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"the receipt is not JSON: {error}") from None
    for name in _AROUND:
        if isinstance(content, dict) and name in content:
            content = content[name]
    is_answer = isinstance(content, dict) and "receipt" in content
    try:
        receipt = msgspec.convert(content["receipt"] if is_answer else content, Receipt)
    except msgspec.ValidationError as error:
        raise InvalidInputError(
            f"this is neither a receipt nor an answer with one: {error}; give the structured "
            "content of an answer, or its receipt"
        ) from None
    if receipt.tool not in _NAMES:
        raise InvalidInputError(
            f"the receipt is of the tool {receipt.tool[:100]!r}, and this version has "
            f"{', '.join(_NAMES)}"
        )
    return _Document(receipt, content if is_answer else None)


async def _compared(
    parts: ServerParts, receipt: Receipt, answer: dict[str, Any] | None
) -> ReceiptReport:
    try:
        parts.rag.queries.defaults = search_of(receipt)
    except msgspec.ValidationError as error:
        raise InvalidInputError(
            f"the receipt's settings of searches are not of this version: {error}"
        ) from None
    deadline_s = time.monotonic() + parts.gate.config.request_deadline_s
    context = RequestContext(deadline_s=deadline_s)
    outcome = await parts.tools.call(receipt.tool, receipt.arguments, context)
    if isinstance(outcome, ErrorObject):
        return ReceiptReport("different", receipt, None, outcome.message)
    now = msgspec.json.decode(outcome)
    made_again = msgspec.convert(now["receipt"], Receipt)
    if made_again.digest == receipt.digest:
        return ReceiptReport("same", receipt, made_again.digest)
    return ReceiptReport(
        "different",
        receipt,
        made_again.digest,
        versions=_other_versions(receipt.versions, made_again.versions),
        differences=[] if answer is None else list(_differences(answer, now, "")),
    )


def _other_versions(
    then: dict[str, str | None], now: dict[str, str | None]
) -> dict[str, tuple[str | None, str | None]]:
    pairs = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _differences(then: Any, now: Any, path: str) -> Iterator[Difference]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            if path or name != "receipt":
                inner = f"{path}.{name}" if path else name
                yield from _differences(then.get(name), now.get(name), inner)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for place, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(*pair, f"{path}[{place}]")
    elif then != now:
        yield Difference(path, _shown(then), _shown(now))


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
