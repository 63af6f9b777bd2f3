"""One nearest-neighbour search: the requests to the server, and hits out of its replies.

The server scores by its own arithmetic. Hits are scored again from their vectors, so that equal
vectors have equal scores and every backend answers alike, and ordered by score, then time. Where
the limit might cut through equal scores, all of them are requested.

The server cannot scale the scores of points that lack something. So where points of several kinds
are in the window, the nearest of each kind are requested, and put in one order here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llm_trader.arrays import COSINE_ROUNDING, Cosines, Rows
from llm_trader.index.memory import eligible, scales_of
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.index.qdrant import requests
from llm_trader.index.qdrant.column_cache import MovedError
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import ClientPoints, PointVectors, Reader
from llm_trader.snapshot.table import any_lacks

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
    alias: Reader,
    collection: Reader,
    query: SearchQuery,
    kinds: Sequence[int | None],
    *,
    exact: bool,
) -> Reply:
    """One round trip to the alias, for the nearest points of each kind.

    There are more where the limit would cut through equal scores, or is so great that vectors are
    read by themselves, from the collection that the alias leads to.
    """
    params = requests.search_params(alias.connection.server, exact=exact)
    limit = query.limit + _SPARE
    queries = [requests.nearest(query, query.ranges, limit, params, kind) for kind in kinds]
    # The best of the whole window is another question only where ranges leave points out.
    if query.ranges:
        queries += [requests.nearest(query, (), 1, params, kind) for kind in kinds]
    head, replies = await _ask(alias, queries)
    nearest, best = replies[: len(kinds)], replies[len(kinds) :]
    complete = exact and all(len(hits) < limit for hits in nearest)
    if exact:
        for place, kind in enumerate(kinds):
            if len(nearest[place]) == limit:
                nearest[place] = await _with_ties(alias, query, kind, nearest[place], head, params)
    hits = [hit for of_kind in nearest for hit in of_kind]
    if any(hit.vector is None for hit in hits):
        found = await collection.vectors_by_id([str(hit.id) for hit in hits], query.name)
    else:
        found = collection.vectors_in(hits, query.name)
    best_hits = [hit for of_kind in best for hit in of_kind]
    best_found = alias.vectors_in(best_hits, query.name) if query.ranges else found
    return Reply(head, found, best_found, complete)


async def _with_ties(
    alias: Reader,
    query: SearchQuery,
    kind: int | None,
    hits: ClientPoints,
    head: Head,
    params: models.SearchParams,
) -> ClientPoints:
    """The hits of a kind, and those as near as the last that counts."""
    # Rounding may lower one score and raise the other.
    lowest_score = hits[query.limit - 1].score - 2 * COSINE_ROUNDING
    if hits[-1].score <= lowest_score:
        return hits
    limit = max(1, await _count(alias, query, kind))
    all_near = requests.nearest(query, query.ranges, limit, params, kind, lowest_score)
    later_head, (hits,) = await _ask(alias, [all_near])
    # Hits of one collection must not be scored on the columns of another.
    if later_head.token != head.token:
        raise MovedError
    return hits


async def _ask(
    alias: Reader, queries: Sequence[models.QueryRequest]
) -> tuple[Head, list[ClientPoints]]:
    """The head, and the replies to queries of the same request."""
    head, *replies = await alias.query("searching", [requests.the_head(), *queries])
    return alias.head_in(head), replies


async def _count(alias: Reader, query: SearchQuery, kind: int | None) -> int:
    inside = requests.of_window(query.symbol, query.window, query.ranges, kind)
    reply = await alias.connection.call(
        "counting points", lambda client: client.count(alias.name, inside, exact=True)
    )
    return reply.count


def kinds_in(window: PointTable, query: SearchQuery) -> list[int | None]:
    """The kinds of points that need a search each; [None] where one search ranks all."""
    if query.scales is None or not any_lacks(window.values):
        return [None]
    kinds = np.unique(window.lacking()).tolist()
    comparable = [kind for kind in kinds if query.scales[kind] > 0]
    return list(comparable)


def is_ahead(reply: Reply, window: PointTable) -> bool:
    """Whether the reply has a point that is not in the window's table."""
    return not np.isin(reply.nearest.times, window.timestamp_ms).all()


def scored_hits(query: SearchQuery, reply: Reply, window: PointTable) -> Hits:
    """Scored and ordered; points that the table lacks are left out."""
    scale = scales_of(window, query)
    rows, cosine = _scored(query, reply.nearest, window, scale)
    order = np.argsort(-cosine, kind="stable")[: query.limit]
    _, best = _scored(query, reply.best, window, scale)
    passing = eligible(window, query, scale)
    count = len(window) if passing is None else int(np.count_nonzero(passing))
    if reply.complete:  # a caller that asks for more until it has all must come to an end
        count = len(rows)
    best_cosine = float(best.max()) if len(best) else np.nan
    return Hits(window, rows[order], cosine[order], count, best_cosine)


def _scored(
    query: SearchQuery, found: PointVectors, window: PointTable, scale: Cosines | None
) -> tuple[Rows, Cosines]:
    """The rows of points in the window, in the order of time, and their scores."""
    in_window = np.isin(found.times, window.timestamp_ms)
    rows = np.searchsorted(window.timestamp_ms, found.times[in_window])
    time_order = np.argsort(rows)
    rows = rows[time_order]
    cosine: Cosines = np.vecdot(found.vectors[query.name][in_window][time_order], query.vector)
    return rows, cosine if scale is None else cosine * scale[rows]
