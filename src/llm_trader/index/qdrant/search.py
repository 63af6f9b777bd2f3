"""One nearest-neighbour search: the requests to the server, and hits out of its replies.

The server scores by its own arithmetic. Hits are scored again from their vectors, so that equal
vectors have equal scores and every backend answers alike, and ordered by score, then time. Where
the limit might cut through equal scores, all of them are requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Vectors
from llm_trader.index.memory import admitted
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.index.qdrant import requests
from llm_trader.index.qdrant.column_cache import MovedError
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.paging import ClientPoints
from llm_trader.index.qdrant.reader import PointVectors, Reader

if TYPE_CHECKING:
    from qdrant_client import models

# Hits beyond the limit, so that equal scores at the limit rarely need a second request.
_SPARE: Final = 8
# Decoding this many numbers holds up the event loop for some milliseconds; more hits than that
# bring no vectors along, and these are read page by page.
_FLOATS_ALONG: Final = 64_000
_LEAST_HITS_ALONG: Final = 500


class Reply(NamedTuple):
    """`best` is the nearest of the window whatever the ranges; `complete`: nothing is left out."""

    head: Head
    nearest: PointVectors
    best: PointVectors
    complete: bool


@dataclass(frozen=True, slots=True)
class _Search:
    query: SearchQuery
    params: models.SearchParams
    lowest_score: float | None = None


async def request_nearest(
    alias: Reader, collection: Reader, query: SearchQuery, *, exact: bool
) -> Reply:
    """One round trip to the alias.

    There are more where the limit would cut through equal scores, or is so great that vectors are
    read by themselves, from the collection that the alias leads to.
    """
    limit = query.limit + _SPARE
    search = _Search(query, requests.search_params(alias.pages.connection.server, exact=exact))
    best_of_window = [requests.nearest(query, (), 1, search.params)] if query.ranges else []
    head, hits, best = await _nearest(alias, search, limit, best_of_window)
    complete = exact and len(hits) < limit
    if exact and not complete:
        # Rounding may lower one score and raise the other.
        lowest_score = hits[query.limit - 1].score - 2 * COSINE_ROUNDING
        if hits[-1].score > lowest_score:
            limit = await _count(alias, query)
            search = replace(search, lowest_score=lowest_score)
            later_head, hits, _ = await _nearest(alias, search, limit)
            if later_head.token != head.token:
                raise MovedError
    nearest = await _vectors(collection, query.name, hits)
    best_vectors = alias.vectors_in(best[0], query.name) if best else nearest
    return Reply(head, nearest, best_vectors, complete)


async def _nearest(
    alias: Reader, search: _Search, limit: int, others: Sequence[models.QueryRequest] = ()
) -> tuple[Head, ClientPoints, list[ClientPoints]]:
    """The head, the nearest points, and the replies to other queries of the same request."""
    query = search.query
    nearest = requests.nearest(
        query, query.ranges, max(1, limit), search.params, search.lowest_score
    )
    if limit > max(_LEAST_HITS_ALONG, _FLOATS_ALONG // len(query.vector)):
        nearest.with_vector = False
    replies = await alias.pages.query("searching", [requests.the_head(), nearest, *others])
    return alias.head_in(replies[0]), replies[1], list(replies[2:])


async def _count(alias: Reader, query: SearchQuery) -> int:
    inside = requests.of_window(query.symbol, query.window, query.ranges)
    reply = await alias.pages.connection.call(
        "counting points",
        lambda client: client.count(alias.pages.name, inside, exact=True),
    )
    return reply.count


async def _vectors(collection: Reader, name: str, hits: ClientPoints) -> PointVectors:
    if not len(hits) or hits[0].vector is not None:
        return collection.vectors_in(hits, name)
    return await collection.vectors_by_id([str(hit.id) for hit in hits], name)


def is_ahead(reply: Reply, window: PointTable) -> bool:
    """Whether the reply has a point that is not in the window's table."""
    return not np.isin(reply.nearest.times, window.timestamp_ms).all()


def scored_hits(query: SearchQuery, reply: Reply, window: PointTable) -> Hits:
    """Scored and ordered; points that the table lacks are left out."""
    in_window = np.isin(reply.nearest.times, window.timestamp_ms)
    rows = np.searchsorted(window.timestamp_ms, reply.nearest.times[in_window])
    time_order = np.argsort(rows)
    rows = rows[time_order]
    cosine = _cosine(reply.nearest.vectors[in_window][time_order], query.vector)
    order = np.argsort(-cosine, kind="stable")[: query.limit]
    best = _cosine(reply.best.vectors, query.vector)
    eligible = len(window)
    if query.ranges:
        eligible = int(np.count_nonzero(admitted(window, query.ranges)))
    if reply.complete:  # a caller that asks for more until it has all must come to an end
        eligible = len(rows)
    return Hits(
        window, rows[order], cosine[order], eligible, float(best.max()) if len(best) else np.nan
    )


def _cosine(vectors: Vectors, query: Vectors) -> npt.NDArray[np.float32]:
    cosine: npt.NDArray[np.float32] = np.vecdot(vectors, query)
    return cosine
