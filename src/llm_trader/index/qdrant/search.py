"""One nearest-neighbour search: the requests to the server, and hits out of its replies.

The server scores by its own arithmetic. Hits are scored again from their vectors, so that equal
vectors have equal scores and every backend answers alike, and ordered by score, then time. Where
the limit might cut through equal scores, all of them are requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llm_trader.arrays import COSINE_ROUNDING
from llm_trader.index.memory import admitted
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.index.qdrant import requests
from llm_trader.index.qdrant.column_cache import MovedError
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import ClientPoints, PointVectors, Reader

if TYPE_CHECKING:
    from qdrant_client import models

# Hits beyond the limit, so that equal scores at the limit rarely need a second request.
_SPARE: Final = 8


class Reply(NamedTuple):
    """`best` is the nearest of the window whatever the ranges; `complete`: nothing is left out."""

    head: Head
    nearest: PointVectors
    best: PointVectors
    complete: bool


async def request_nearest(
    alias: Reader, collection: Reader, query: SearchQuery, *, exact: bool
) -> Reply:
    """One round trip to the alias.

    There are more where the limit would cut through equal scores, or is so great that vectors are
    read by themselves, from the collection that the alias leads to.
    """
    params = requests.search_params(alias.connection.server, exact=exact)
    limit = query.limit + _SPARE
    # The best of the whole window is another question only where ranges leave points out.
    queries = [requests.nearest(query, query.ranges, limit, params)]
    if query.ranges:
        queries.append(requests.nearest(query, (), 1, params))
    head, (hits, *best) = await _ask(alias, queries)
    complete = exact and len(hits) < limit
    if exact and not complete:
        # Rounding may lower one score and raise the other.
        lowest_score = hits[query.limit - 1].score - 2 * COSINE_ROUNDING
        if hits[-1].score > lowest_score:
            limit = max(1, await _count(alias, query))
            all_near = requests.nearest(query, query.ranges, limit, params, lowest_score)
            later_head, (hits,) = await _ask(alias, [all_near])
            # Hits of one collection must not be scored on the columns of another.
            if later_head.token != head.token:
                raise MovedError
    if len(hits) and hits[0].vector is None:
        nearest = await collection.vectors_by_id([str(hit.id) for hit in hits], query.name)
    else:
        nearest = collection.vectors_in(hits, query.name)
    best_vectors = alias.vectors_in(best[0], query.name) if best else nearest
    return Reply(head, nearest, best_vectors, complete)


async def _ask(
    alias: Reader, queries: Sequence[models.QueryRequest]
) -> tuple[Head, list[ClientPoints]]:
    """The head, and the replies to queries of the same request."""
    head, *replies = await alias.query("searching", [requests.the_head(), *queries])
    return alias.head_in(head), replies


async def _count(alias: Reader, query: SearchQuery) -> int:
    inside = requests.of_window(query.symbol, query.window, query.ranges)
    reply = await alias.connection.call(
        "counting points", lambda client: client.count(alias.name, inside, exact=True)
    )
    return reply.count


def is_ahead(reply: Reply, window: PointTable) -> bool:
    """Whether the reply has a point that is not in the window's table."""
    return not np.isin(reply.nearest.times, window.timestamp_ms).all()


def scored_hits(query: SearchQuery, reply: Reply, window: PointTable) -> Hits:
    """Scored and ordered; points that the table lacks are left out."""
    in_window = np.isin(reply.nearest.times, window.timestamp_ms)
    rows = np.searchsorted(window.timestamp_ms, reply.nearest.times[in_window])
    time_order = np.argsort(rows)
    rows = rows[time_order]
    cosine = np.vecdot(reply.nearest.vectors[query.name][in_window][time_order], query.vector)
    order = np.argsort(-cosine, kind="stable")[: query.limit]
    best = np.vecdot(reply.best.vectors[query.name], query.vector)
    eligible = len(window)
    if query.ranges:
        eligible = int(np.count_nonzero(admitted(window, query.ranges)))
    if reply.complete:  # a caller that asks for more until it has all must come to an end
        eligible = len(rows)
    best_cosine = float(best.max()) if len(best) else np.nan
    return Hits(window, rows[order], cosine[order], eligible, best_cosine)
