"""Requests to Qdrant in the client's models: collections, filters and queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llm_trader.index.asof import Window
from llm_trader.index.protocol import Collection, FieldRange, SearchQuery
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.layout import HEAD_ID
from llm_trader.snapshot.model import OPTIONAL
from llm_trader.timeframe import Millis

if TYPE_CHECKING:
    from qdrant_client import models

# Qdrant's default breadth of a graph, here for the graph of each symbol.
_PAYLOAD_M: Final = 16
# Candidates by bytes for each hit, which are then scored by their vectors.
_OVERSAMPLING: Final = 2.0
# Decoding this many numbers holds up the event loop for some milliseconds; more hits than that
# bring no vectors along, and these are read page by page.
_FLOATS_ALONG: Final = 64_000
_LEAST_HITS_ALONG: Final = 500
_RANGED: Final = ("timestamp", "resolved_at", "written")
# The fields that say whether a point has what is `OPTIONAL`; ranges are of them as well.
_DECIDING: Final = tuple(fields[-1] for fields in OPTIONAL.values())


def collection_config(server: QdrantServer, collection: Collection) -> dict[str, Any]:
    """Arguments for a new collection, with a graph for each symbol and none over all."""
    from qdrant_client import models

    quantization = None
    if server.quantization == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        quantization = models.ScalarQuantization(scalar=scalar)
    return {
        "vectors_config": {
            name: models.VectorParams(size=dimension, distance=models.Distance.COSINE)
            for name, dimension in collection.dimensions.items()
        },
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=_PAYLOAD_M),
        "quantization_config": quantization,
        "shard_number": server.shard_number,
        "replication_factor": server.replication_factor,
    }


def payload_indexes() -> dict[str, Any]:
    """Indexes of the fields that queries filter or order by; created before there are points."""
    from qdrant_client import models

    integer, keyword = models.IntegerIndexType.INTEGER, models.KeywordIndexType.KEYWORD
    return {
        "symbol": models.KeywordIndexParams(type=keyword, is_tenant=True),
        **{
            name: models.IntegerIndexParams(type=integer, lookup=False, range=True)
            for name in _RANGED
        },
        "run": models.IntegerIndexParams(type=integer, lookup=True, range=True),
        **{name: models.FloatIndexParams(type=models.FloatIndexType.FLOAT) for name in _DECIDING},
    }


def points_of(
    symbol: str,
    ranges: Iterable[FieldRange] = (),
    kind: int | None = None,
    **bounds: tuple[Millis | None, Millis | None],
) -> models.Filter:
    """Points of a symbol inside ranges, and inside bounds by field, both ends included.

    With a `kind`, only those that lack exactly so much (`PointTable.lacking`).
    """
    from qdrant_client import models

    ranges = list(ranges)
    limits: list[tuple[str, dict[str, Any]]] = [
        *((key, {"gte": low, "lte": high}) for key, (low, high) in bounds.items()),
        *((inside.field, _bounds(inside)) for inside in ranges),
    ]
    conditions: list[models.Condition] = [
        models.FieldCondition(key="symbol", match=models.MatchValue(value=symbol)),
        *(models.FieldCondition(key=k, range=models.Range(**ends)) for k, ends in limits if ends),
    ]
    # A range without ends is no condition on the wire, but it leaves out what is unknown.
    known = {inside.field for inside in ranges if not _bounds(inside)}
    unknown: set[str] = set()
    if kind is not None:
        for bit, field in enumerate(_DECIDING):
            (unknown if kind >> bit & 1 else known).add(field)
    conditions += map(_is_unknown, sorted(unknown))
    return models.Filter(must=conditions, must_not=list(map(_is_unknown, sorted(known))) or None)


def _is_unknown(field: str) -> models.Condition:
    from qdrant_client import models

    return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))


def lacking(bit: int) -> models.Filter:
    """The points of all symbols that lack one of what is `OPTIONAL`."""
    from qdrant_client import models

    return models.Filter(must=[_is_unknown(_DECIDING[bit])])


def of_window(
    symbol: str, window: Window, ranges: Iterable[FieldRange] = (), kind: int | None = None
) -> models.Filter:
    """The as-of rule as a filter, and the ranges of a query."""
    return points_of(
        symbol,
        ranges,
        kind,
        timestamp=(window.earliest_timestamp_ms, None),
        resolved_at=(None, window.resolved_by_ms),
    )


def _bounds(field_range: FieldRange) -> dict[str, float]:
    """The finite bounds, because the wire has no infinite numbers."""
    low, high = ("gt", "lt") if field_range.exclusive else ("gte", "lte")
    bounds = {low: field_range.low} if field_range.low > -np.inf else {}
    bounds |= {high: field_range.high} if field_range.high < np.inf else {}
    return {name: float(np.nan_to_num(value)) for name, value in bounds.items()}


def ids_of(ids: Sequence[str]) -> models.PointIdsList:
    from qdrant_client import models

    return models.PointIdsList(points=list(ids))


def written_by(run: int) -> models.Filter:
    """The points of the runs up to a number."""
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="run", range=models.Range(lte=run))])


def nearest(
    query: SearchQuery,
    ranges: Iterable[FieldRange],
    limit: int,
    params: models.SearchParams,
    kind: int | None = None,
    threshold: float | None = None,
) -> models.QueryRequest:
    """The points most like a query's vector with their times, and their vectors unless too many.

    With a `kind`, only among those that lack exactly so much.
    """
    from qdrant_client import models

    with_vectors = limit <= max(_LEAST_HITS_ALONG, _FLOATS_ALONG // len(query.vector))
    return models.QueryRequest(
        query=query.vector.tolist(),
        using=query.name,
        filter=of_window(query.symbol, query.window, ranges, kind),
        params=params,
        limit=limit,
        score_threshold=threshold,
        with_payload=["timestamp"],
        with_vector=[query.name] if with_vectors else False,
    )


def the_head() -> models.QueryRequest:
    from qdrant_client import models

    only = models.Filter(must=[models.HasIdCondition(has_id=[HEAD_ID])])
    return models.QueryRequest(filter=only, limit=1, with_payload=True)


def ends_of(symbol: str) -> list[models.QueryRequest]:
    """The first point of a symbol, and the last."""
    from qdrant_client import models

    return [
        models.QueryRequest(
            query=models.OrderByQuery(
                order_by=models.OrderBy(key="timestamp", direction=direction)
            ),
            filter=points_of(symbol),
            limit=1,
            with_payload=["timestamp"],
        )
        for direction in (models.Direction.ASC, models.Direction.DESC)
    ]


def search_params(server: QdrantServer, *, exact: bool) -> models.SearchParams:
    """An exact search compares with the vectors themselves and ignores their quantization."""
    from qdrant_client import models

    if exact:
        ignored = models.QuantizationSearchParams(ignore=True)
        return models.SearchParams(exact=True, quantization=ignored)
    rescored = models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
    return models.SearchParams(hnsw_ef=server.hnsw_ef, quantization=rescored)


def point_structs(
    ids: Iterable[str], vectors: Mapping[str, Any], contents: Iterable[Mapping[str, Any]]
) -> list[models.PointStruct]:
    """`vectors` by name, each (n, dimension)."""
    from qdrant_client import models

    rows = {name: matrix.tolist() for name, matrix in vectors.items()}
    return [
        models.PointStruct(id=id_, vector={n: rows[n][i] for n in rows}, payload=dict(content))
        for i, (id_, content) in enumerate(zip(ids, contents, strict=True))
    ]
