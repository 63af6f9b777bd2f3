"""`rag.subscribe` and `rag.unsubscribe`: who wants to be told of new snapshots, and of which."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.rpc.admission import Session
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import OverloadedError
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.wire import QueryConfigParams, Symbol
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis

# The name of the notification.
EVIDENCE: Final = "rag.evidence"


class SubscribeParams(Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol
    query_config: QueryConfigParams | None = None


class Subscribed(Struct, frozen=True):
    """From now on the server sends a notification `rag.evidence` at each new snapshot.

    Its `params` are `subscription`, `symbol`, `as_of`, and either `result`, the result of
    `rag.query_patterns` at that time, or `error` as an error object.
    """

    subscription: Annotated[str, Meta(description="Id of the subscription on this connection.")]
    as_of: Annotated[
        Millis | None,
        Meta(description="Newest snapshot at this moment, UTC milliseconds; later ones are sent."),
    ]


class UnsubscribeParams(Struct, frozen=True, forbid_unknown_fields=True):
    subscription: Annotated[str, Meta(description="Id that rag.subscribe returned.")]


class Unsubscribed(Struct, frozen=True):
    unsubscribed: Annotated[bool, Meta(description="Always true; an unknown id is an error.")]


@dataclass(slots=True, eq=False)
class Subscription:
    """`query_config` is JSON, so that equal ones are known as such."""

    id: str
    session: Session
    symbol: str
    query_config: bytes
    pushed_ms: Millis | None


class Subscriptions:
    """All subscriptions of a server. Without `market` there are no new snapshots."""

    def __init__(self, market: SnapshotSource | None, config: ServingConfig) -> None:
        self._market = market
        self.config = config
        self._ids = itertools.count(1)
        self._by_session: dict[int, dict[str, Subscription]] = {}

    def methods(self) -> list[Method]:
        return [
            replace(method, handler=partial(method.handler, self))
            for method in SUBSCRIPTION_METHODS
        ]

    def __iter__(self) -> Iterator[Subscription]:
        return iter([entry for own in self._by_session.values() for entry in own.values()])

    async def subscribe(self, params: SubscribeParams, context: RequestContext) -> Subscribed:
        session = context.session
        if session.channel is None:
            raise InvalidInputError(
                "rag.subscribe needs a connection on which the server can send: connect by "
                "WebSocket to the path /ws of the HTTP port"
            )
        if self._market is None:
            raise InvalidInputError("this server has no market store; start it with --store")
        available = self._market.store.symbols()
        if params.symbol not in available:
            raise SymbolNotFoundError(params.symbol, available)
        own = self._by_session.get(id(session), {})
        self._expect_room(own)
        as_of_ms = self.newest_ms(params.symbol)
        config = msgspec.json.encode(params.query_config)
        name = f"s{next(self._ids)}"
        if id(session) not in self._by_session:
            self._by_session[id(session)] = own
            session.at_end.append(partial(self._by_session.__delitem__, id(session)))
        own[name] = Subscription(name, session, params.symbol, config, as_of_ms)
        return Subscribed(name, as_of_ms)

    async def unsubscribe(self, params: UnsubscribeParams, context: RequestContext) -> Unsubscribed:
        own = self._by_session.get(id(context.session), {})
        if own.pop(params.subscription, None) is None:
            names = ", ".join(own) or "none"
            raise InvalidInputError(
                f"this connection has no subscription {params.subscription[:64]!r}; it has: {names}"
            )
        return Unsubscribed(True)

    def newest_ms(self, symbol: str) -> Millis | None:
        """The time of the newest usable snapshot of a symbol."""
        end_ms = self._market.end_ms(symbol) if self._market else None
        if self._market is None or end_ms is None:
            return None
        return self._market.view(symbol).newest_usable_ms(end_ms, self.config.max_data_age_ms)

    def _expect_room(self, own: dict[str, Subscription]) -> None:
        limit = self.config.max_subscriptions_per_connection
        if len(own) >= limit:
            raise OverloadedError(
                f"overloaded: this connection has {limit} subscriptions already "
                "(serving.max_subscriptions_per_connection); end one with rag.unsubscribe"
            )
        if sum(map(len, self._by_session.values())) >= self.config.max_subscriptions:
            raise OverloadedError(
                f"overloaded: the server has {self.config.max_subscriptions} subscriptions "
                "already (serving.max_subscriptions); subscribe again later"
            )


_UNBOUND: Final[Any] = Subscriptions

# The documents describe these; `Subscriptions.methods` binds them.
SUBSCRIPTION_METHODS: Final = (
    Method(
        "rag.subscribe",
        SubscribeParams,
        _UNBOUND.subscribe,
        "Sends the evidence of a symbol at each new snapshot, over WebSocket.",
        Subscribed,
        (SymbolNotFoundError, OverloadedError),
        access="subscribe",
    ),
    Method(
        "rag.unsubscribe",
        UnsubscribeParams,
        _UNBOUND.unsubscribe,
        "Ends a subscription of this connection.",
        Unsubscribed,
        (InvalidInputError,),
        quick=True,
        access="subscribe",
    ),
)
