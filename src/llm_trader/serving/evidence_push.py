"""Pushes evidence to subscribers: notices new snapshots, queries them once, tells all.

The queries pass the dispatcher and the queue like those of a client, the server itself, so that
subscribers neither overtake those who ask nor wait for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Final

import msgspec
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from llm_trader.serving.subscriptions import EVIDENCE, Subscription, Subscriptions
from llm_trader.timeframe import Millis

# A look at a symbol that nobody wrote to takes some 20 µs.
_EVERY_S: Final = 0.5
_LOOK: Final = "a look for new snapshots"

_log = structlog.get_logger(__name__)


class _Reply(msgspec.Struct, omit_defaults=True):
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class EvidencePusher:
    def __init__(
        self,
        subscriptions: Subscriptions,
        dispatcher: Dispatcher,
        gate: Admission,
    ) -> None:
        self._subscriptions = subscriptions
        self._dispatcher = dispatcher
        self._gate = gate
        self._session = Session(peer="subscriptions:0", of_server=True)

    async def run(self) -> None:
        """Runs until it is cancelled; logs a pass that fails."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  a bug here must not end all subscriptions
                _log.error("evidence_push_failed", exc_info=error)

    async def look(self) -> None:
        """Pushes what is new; returns when all subscribers are told."""
        if self._gate.draining:
            return
        groups: dict[tuple[str, Millis, bytes], list[Subscription]] = defaultdict(list)
        newest_ms: dict[str, Millis | None] = {}
        for subscription in self._subscriptions:
            symbol = subscription.symbol
            if symbol not in newest_ms:
                newest_ms[symbol] = await self._newest_ms(symbol)
            as_of_ms = newest_ms[symbol]
            if as_of_ms is not None and as_of_ms > (subscription.pushed_ms or 0):
                subscription.pushed_ms = as_of_ms
                groups[symbol, as_of_ms, subscription.query_config].append(subscription)
        await asyncio.gather(*(self._tell(*key, group) for key, group in groups.items()))

    async def _newest_ms(self, symbol: str) -> Millis | None:
        await self._gate.turn(self._session, _LOOK)
        try:
            return self._subscriptions.newest_ms(symbol)
        except LlmTraderError as error:
            _log.debug("subscribed_symbol_unreadable", symbol=symbol, error=error.message)
            return None
        finally:
            self._gate.end_turn()

    async def _tell(
        self, symbol: str, as_of_ms: Millis, query_config: bytes, group: list[Subscription]
    ) -> None:
        """One query for all who asked for the same."""
        encoded = msgspec.json.encode(symbol)
        call = (
            b'{"jsonrpc":"2.0","id":0,"method":"rag.query_patterns","params":'
            b'{"symbol":%b,"timestamp":%d,"query_config":%b}}' % (encoded, as_of_ms, query_config)
        )
        now_s = time.monotonic()
        context = RequestContext(
            session=self._session,
            received_s=now_s,
            deadline_s=now_s + self._gate.config.request_deadline_s,
            request_bytes=len(call),
        )
        answer = await self._dispatcher.handle(call, context, self._gate)
        reply = msgspec.json.decode(answer or b"{}", type=_Reply)
        name, body = (b"result", reply.result) if reply.result else (b"error", reply.error)
        for subscription in group:
            document = (
                b'{"jsonrpc":"2.0","method":"%b","params":'
                b'{"subscription":"%b","symbol":%b,"as_of":%d,"%b":%b}}'
                % (EVIDENCE.encode(), subscription.id.encode(), encoded, as_of_ms, name, body)
            )
            channel = subscription.session.channel
            if channel is not None and not channel.push(document):
                _log.info("subscriber_dropped", peer=subscription.session.peer)
