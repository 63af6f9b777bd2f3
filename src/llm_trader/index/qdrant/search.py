"""One nearest-neighbour search: what is asked of the server, and hits out of its reply.

The server scores by its own arithmetic. Hits are scored again from their vectors, so that equal
vectors have equal scores and every backend answers alike, and ordered by score, then time. Where
the limit might cut through equal scores, all of them are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Times, Vectors
from llm_trader.index.memory import admitted
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.column_cache import MovedError
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.paging import ClientPoints
from llm_trader.index.qdrant.reader import Reader

if TYPE_CHECKING:
    from qdrant_client import models

_SPARE: Final = 8
_LEAST_HITS: Final = 500
_FLOATS: Final = 64_000
_FLOATS_A_PAGE: Final = 24_000


class PointVectors(NamedTuple):
    """Points in no order: times (n,), vectors (n, dimension)."""

    times: Times
    vectors: Vectors


class Reply(NamedTuple):
    """`best` is the nearest of the window whatever the ranges; `complete`: nothing is left out."""

    head: Head
    found: PointVectors
    best: PointVectors
    complete: bool


async def ask(front: Reader, cached: Reader, query: SearchQuery, *, exact: bool) -> Reply:
    """One round trip to `front`, the alias; more where the limit would cut through equal scores,
    or is so great that vectors are read by themselves, from the collection behind it.
    """
    limit = query.limit + _SPARE
    wanted = _Wanted(query, requests.search_params(front.pages.connection.server, exact=exact))
    also = [requests.nearest(query, (), 1, wanted.params)] if query.ranges else []
    head, hits, best = await _nearest(front, wanted, limit, also)
    complete = exact and len(hits) < limit
    if exact and not complete:
        least = hits[query.limit - 1].score - 2 * COSINE_ROUNDING  # of either side
        if hits[-1].score > least:
            limit = await _count(front, query)
            again, hits, _ = await _nearest(front, replace(wanted, least=least), limit)
            if again.token != head.token:
                raise MovedError
    found = await _vectors(cached, query.name, hits)
    return Reply(head, found, _read(front, best[0], query.name) if best else found, complete)


@dataclass(frozen=True, slots=True)
class _Wanted:
    query: SearchQuery
    params: models.SearchParams
    least: float | None = None


async def _nearest(
    front: Reader, wanted: _Wanted, limit: int, also: Sequence[models.QueryRequest] = ()
) -> tuple[Head, ClientPoints, list[ClientPoints]]:
    """The head, the nearest points, and the replies to what is asked for in the same request."""
    query = wanted.query
    near = requests.nearest(query, query.ranges, max(1, limit), wanted.params, wanted.least)
    if limit > _with_vectors(query):
        near.with_vector = False
    replies = await front.pages.query("searching", [requests.the_head(), near, *also])
    return front.head_in(replies[0]), replies[1], list(replies[2:])


async def _count(front: Reader, query: SearchQuery) -> int:
    inside = requests.of_window(query.symbol, query.window, query.ranges)
    counted = await front.pages.connection.call(
        "counting points",
        lambda client: client.count(front.pages.name, inside, exact=True),
    )
    return counted.count


def _with_vectors(query: SearchQuery) -> int:
    """How many hits may bring their vectors along without holding up the event loop for long."""
    return max(_LEAST_HITS, _FLOATS // len(query.vector))


async def _vectors(reader: Reader, name: str, hits: ClientPoints) -> PointVectors:
    if not len(hits) or hits[0].vector is not None:
        return _read(reader, hits, name)
    ids = [str(hit.id) for hit in hits]
    parts = await reader.pages.by_id(
        "reading vectors",
        ids,
        lambda found: _found(reader, found, name),
        fields=["timestamp"],
        names=[name],
        size=max(1, _FLOATS_A_PAGE // reader.collection.dimensions[name]),
    )
    return PointVectors(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _read(reader: Reader, hits: ClientPoints, name: str) -> PointVectors:
    return reader.pages.read(lambda hits: _found(reader, hits, name), hits)


def _found(reader: Reader, hits: ClientPoints, name: str) -> PointVectors:
    dimension = reader.collection.dimensions[name]
    return PointVectors(layout.stamps_of(hits), layout.vectors_of(hits, name, dimension))


def unknown(reply: Reply, window: PointTable) -> bool:
    """Whether some point that was found is not in the window's table."""
    return not np.isin(reply.found.times, window.timestamp_ms).all()


def hits_of(query: SearchQuery, reply: Reply, window: PointTable) -> Hits:
    """Scored and ordered; points that the table lacks are left out."""
    known = np.isin(reply.found.times, window.timestamp_ms)
    rows = np.searchsorted(window.timestamp_ms, reply.found.times[known])
    in_time = np.argsort(rows)
    rows = rows[in_time]
    cosine = _cosine(reply.found.vectors[known][in_time], query.vector)
    order = np.argsort(-cosine, kind="stable")[: query.limit]
    best = _cosine(reply.best.vectors, query.vector)
    eligible = len(window)
    if query.ranges:
        eligible = int(np.count_nonzero(admitted(window, query.ranges)))
    if reply.complete:  # the server's count: a caller that asks for more must get to an end
        eligible = len(rows)
    return Hits(
        window, rows[order], cosine[order], eligible, float(best.max()) if len(best) else np.nan
    )


def _cosine(vectors: Vectors, query: Vectors) -> npt.NDArray[np.float32]:
    cosine: npt.NDArray[np.float32] = np.vecdot(vectors, query)
    return cosine
