"""Queries of the wire as queries of the engine."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from .errors import bad_request, unsupported, wrong_input
from .filters import optional_filter, point_filter, point_id
from .points import dense, wanted_payload, wanted_vectors
from .wire import pb

DEFAULT_LIMIT = 10


def query_request(given: pb.QueryPoints, shard: edge.EdgeShard) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=_limit(given),
        offset=given.offset,
        query=_query(given, shard),
        prefetches=[_prefetch(each, shard) for each in given.prefetch],
        filter=_filter(given),
        score_threshold=given.score_threshold if given.HasField("score_threshold") else None,
        params=_params(given),
        with_vector=wanted_vectors(given),
        with_payload=wanted_payload(given, default=False),
    )


def _limit(given: Any) -> int:
    limit = given.limit if given.HasField("limit") else DEFAULT_LIMIT
    if limit < 1:
        raise bad_request("Validation error: [limit: value 0 invalid, must be 1 or larger]")
    return limit


def _prefetch(given: pb.PrefetchQuery, shard: edge.EdgeShard) -> edge.Prefetch:
    return edge.Prefetch(
        limit=_limit(given),
        query=_query(given, shard),
        prefetches=[_prefetch(each, shard) for each in given.prefetch],
        params=_params(given),
        filter=_filter(given),
        score_threshold=given.score_threshold if given.HasField("score_threshold") else None,
    )


def _filter(given: Any) -> edge.Filter | None:
    """A point that is searched by its own vector is not among the results."""
    own = optional_filter(given)
    if not _by_id(given):
        return own
    excluded = edge.HasIdCondition({point_id(given.query.nearest.id)})
    return edge.Filter(must=None if own is None else [own], must_not=[excluded])


def _by_id(given: Any) -> bool:
    return (
        given.HasField("query")
        and given.query.WhichOneof("variant") == "nearest"
        and given.query.nearest.WhichOneof("variant") == "id"
    )


def _query(given: Any, shard: edge.EdgeShard) -> Any:
    if not given.HasField("query"):
        return None
    query, using = given.query, given.using or None
    kind = query.WhichOneof("variant")
    if kind == "nearest":
        return edge.Query.Nearest(_nearest(query.nearest, using, shard), using=using)
    if kind == "order_by":
        return order_by(query.order_by)
    if kind == "fusion" and query.fusion == pb.Fusion.RRF:
        return edge.Fusion.Rrf(2)
    if kind == "rrf":
        return edge.Fusion.Rrf(query.rrf.k or 2, list(query.rrf.weights) or None)
    if kind == "sample":
        return edge.Sample.Random
    return unsupported(f"the query {kind}")


def _nearest(given: pb.VectorInput, using: str | None, shard: edge.EdgeShard) -> list[float]:
    kind = given.WhichOneof("variant")
    if kind != "id":
        return dense(given, kind)
    found = shard.retrieve([point_id(given.id)], False, True)
    if not found:
        raise wrong_input(f"No point with id {point_id(given.id)} found")
    vector = found[0].vector
    return vector[using] if using else vector


def order_by(given: pb.OrderBy) -> edge.OrderBy:
    start: Any = None
    if given.HasField("start_from"):
        kind = given.start_from.WhichOneof("value")
        if kind not in ("integer", "float", "datetime"):
            unsupported(f"start_from as {kind}")
        start = getattr(given.start_from, kind)
    falling = given.direction == pb.Direction.Desc
    direction = edge.Direction.Desc if falling else edge.Direction.Asc
    return edge.OrderBy(given.key, direction, start)


def _params(given: Any) -> edge.SearchParams | None:
    if not given.HasField("params"):
        return None
    params = given.params
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef if params.HasField("hnsw_ef") else None,
        exact=params.exact,
        indexed_only=params.indexed_only,
    )


def scroll_request(given: pb.ScrollPoints) -> edge.ScrollRequest:
    ordered = given.HasField("order_by")
    if ordered and given.HasField("offset"):
        raise wrong_input(
            "Cannot use an `offset` when using `order_by`. The alternative for paging is to use "
            "`order_by.start_from` and a filter to exclude the IDs that you've already seen for "
            "the `order_by.start_from` value"
        )
    return edge.ScrollRequest(
        offset=point_id(given.offset) if given.HasField("offset") else None,
        limit=_limit(given),
        filter=optional_filter(given),
        with_payload=wanted_payload(given, default=True),
        with_vector=wanted_vectors(given),
        order_by=order_by(given.order_by) if ordered else None,
    )


def selected(given: pb.PointsSelector) -> tuple[list[Any] | None, edge.Filter | None]:
    """Either ids or a filter."""
    kind = given.WhichOneof("points_selector_one_of")
    if kind == "points":
        return [point_id(each) for each in given.points.ids], None
    if kind == "filter":
        return None, point_filter(given.filter)
    raise wrong_input("No PointsSelector is provided")
