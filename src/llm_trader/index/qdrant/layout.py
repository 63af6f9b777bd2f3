"""The layout of a collection: its metadata and payloads, encoded and decoded.

Every collection describes itself in its metadata. It has the points of the symbols, one point for
each ingestion run, one for the data mark of each symbol, and one `head`, which tells readers what
was written last.

A point's payload has all its fields under readable names, for filters and for other programs, and
once more packed in `row`, which this program reads: the server rounds the last digit of decimals,
and one string is far cheaper to decode than forty numbers. An unknown field is null, and NaN in
`row`.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from llm_trader.arrays import Times, Vectors
from llm_trader.index.points import COLUMNS, PointTable
from llm_trader.index.protocol import Collection, IngestionRun
from llm_trader.market.series_changes import DataMark

T = TypeVar("T")

METADATA_KEY: Final = "llm_trader"
LAYOUT: Final = 3

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:llm-trader-rag:qdrant")
HEAD_ID: Final = str(uuid.uuid5(_NAMESPACE, "head"))

_ROW_FIELDS: Final = 12 + 8 * len(COLUMNS)
# A multiple of 3 bytes, so that joined base64 texts are the base64 of the joined rows.
_ROW: Final = np.dtype(
    [
        ("timestamp", "<i8"),
        ("run", "<u4"),
        ("values", "<f8", (len(COLUMNS),)),
        ("padding", "V", -_ROW_FIELDS % 3),
    ]
)
_ROW_TEXT: Final = _ROW.itemsize // 3 * 4


class CollectionDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The description in a collection's metadata. `building` until an alias was set on it."""

    layout: int
    alias: str
    collection: Collection
    columns: tuple[str, ...]
    building: bool


class Head(msgspec.Struct, frozen=True):
    """`written` grows with each transaction, `run` with each ingestion.

    Each start of a run and each collection has a `token` of its own. `removed` is the last
    transaction that removed points; a greater number than `written` is that of one at work.
    """

    token: str
    run: int
    written: int
    removed: int = 0


class _StoredRun(msgspec.Struct, frozen=True):
    details: str
    token: str


class UnreadableError(ValueError):
    """Stored content is not what this layout writes."""


def metadata_of(described: CollectionDescription) -> dict[str, str]:
    return {METADATA_KEY: msgspec.json.encode(described).decode()}


def described_by(metadata: Mapping[str, Any] | None) -> CollectionDescription | None:
    """The description in a collection's metadata; `None` for a collection of another program."""
    text = (metadata or {}).get(METADATA_KEY)
    if not isinstance(text, str):
        return None
    try:
        return msgspec.json.decode(text, type=CollectionDescription)
    except msgspec.MsgspecError as error:
        raise UnreadableError(f"metadata: {error}") from error


def version_name(alias: str, collection: Collection, number: int) -> str:
    """Versions that hold the same kind of points have names with the same beginning."""
    identity = msgspec.json.encode([LAYOUT, COLUMNS, collection])
    digest = hashlib.sha256(identity).hexdigest()[:6]
    return f"{alias}_{collection.feature_version}_{digest}_{number}"


def run_id(number: int) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"run:{number}"))


def run_payload(run: IngestionRun, token: str) -> dict[str, Any]:
    details = msgspec.json.encode(run).decode()
    return {"kind": "run", "run": run.run, "token": token, "details": details}


def run_of(payload: Mapping[str, Any] | None) -> tuple[IngestionRun, str]:
    """A run, and the token of the process that began it."""
    try:
        stored = msgspec.convert(payload or {}, _StoredRun)
        return msgspec.json.decode(stored.details, type=IngestionRun), stored.token
    except msgspec.MsgspecError as error:
        raise UnreadableError(f"run: {error}") from error


def mark_id(symbol: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"data mark:{symbol}"))


def mark_payload(mark: DataMark) -> dict[str, Any]:
    return {"kind": "data mark", "details": msgspec.json.encode(mark).decode()}


def mark_of(payload: Mapping[str, Any] | None) -> DataMark:
    try:
        return msgspec.json.decode((payload or {}).get("details", ""), type=DataMark)
    except (msgspec.MsgspecError, TypeError) as error:
        raise UnreadableError(f"data mark: {error}") from error


def head_payload(head: Head) -> dict[str, Any]:
    return {"kind": "head", **msgspec.structs.asdict(head)}


def head_of(payload: Mapping[str, Any] | None) -> Head:
    try:
        return msgspec.convert(payload or {}, Head)
    except msgspec.ValidationError as error:
        raise UnreadableError(f"head: {error}") from error


def payloads(
    points: PointTable, collection: Collection, build_id: str | None, written: int
) -> list[dict[str, Any]]:
    """The payloads of points in their order, with the build and the transaction that write them."""
    common = {
        "symbol": points.symbol,
        "exchange": collection.exchange,
        "schema_version": collection.schema_version,
        "feature_version": collection.feature_version,
        "state_space_id": collection.state_space_id,
        **({"text_space_id": collection.text_space_id} if collection.text_space_id else {}),
        "build_id": build_id,
        "written": written,
    }
    columns = [[None if v != v else v for v in row] for row in points.values.tolist()]
    stamps, resolved = points.timestamp_ms.tolist(), points.resolved_at_ms.tolist()
    rows = zip(stamps, resolved, points.run.tolist(), packed(points), *columns, strict=True)
    names = ("timestamp", "resolved_at", "run", "row", *COLUMNS)
    return [{**common, **dict(zip(names, row, strict=True))} for row in rows]


def packed(points: PointTable) -> list[str]:
    """Time, run and columns of each point, exact to the last bit."""
    rows = np.zeros(len(points), _ROW)
    rows["timestamp"], rows["run"] = points.timestamp_ms, points.run
    rows["values"] = points.values.T
    text = base64.b64encode(rows.tobytes()).decode()
    return [text[start : start + _ROW_TEXT] for start in range(0, len(text), _ROW_TEXT)]


def table_of(symbol: str, points: Iterable[Any], dimensions: Mapping[str, int]) -> PointTable:
    """Points as the client gives them, in the same order, with the vectors named."""
    points = list(points)
    texts = _stored(points, "row", str)
    try:
        raw = base64.b64decode("".join(texts), validate=True)
    except ValueError as error:  # also for what is not ASCII
        raise UnreadableError(f"row: {error}") from error
    if len(raw) != len(texts) * _ROW.itemsize:
        raise UnreadableError("row: of another length")
    rows = np.frombuffer(raw, _ROW)
    return PointTable(
        symbol,
        rows["timestamp"].astype(np.int64),
        np.ascontiguousarray(rows["values"].T),
        {name: vectors_of(points, name, size) for name, size in dimensions.items()},
        rows["run"].astype(np.uint32),
    )


def vectors_of(points: Iterable[Any], name: str, dimension: int) -> Vectors:
    """The vectors of a name, shape (n, dimension), of points as the client gives them."""
    vectors = [
        point.vector.get(name) if isinstance(point.vector, dict) else None for point in points
    ]
    if any(vector is None or len(vector) != dimension for vector in vectors):
        raise UnreadableError(f"{name} vector: missing, or not of {dimension} numbers")
    return np.array(vectors, np.float32).reshape(-1, dimension)


def stamps_of(points: Iterable[Any]) -> Times:
    """The timestamps of points as the client gives them, shape (n,)."""
    return np.array(_stored(points, "timestamp", int), np.int64)


def _stored(points: Iterable[Any], field: str, kind: type[T]) -> list[T]:
    """A payload field of each point; raises `UnreadableError` where one is not of its type."""
    values: list[Any] = [(point.payload or {}).get(field) for point in points]
    if not all(isinstance(value, kind) for value in values):
        raise UnreadableError(f"{field}: missing, or of another type than {kind.__name__}")
    return values
