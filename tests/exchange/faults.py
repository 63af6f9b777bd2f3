"""Ways in which the exchange fails; each is used up by one request."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

Kind = Literal[
    "too_many_requests", "banned", "server_error", "bad_gateway", "damaged", "web_page",
    "disconnect", "cut_off", "silence", "bybit_limit", "bybit_system_error", "refused_country",
    "wrong_shape", "null", "too_many_without_header", "forbidden", "lost_request", "late_request",
]  # fmt: skip

# The request is not looked at when it comes: never, or only when its sender has given up.
UNSEEN: tuple[Kind, ...] = ("lost_request", "late_request")
# The exchange says that it does not look at it.
TURNED_AWAY: tuple[Kind, ...] = (
    "too_many_requests", "too_many_without_header", "banned", "forbidden", "refused_country",
    "bybit_limit",
)  # fmt: skip

ANY_VENUE: tuple[Kind, ...] = (
    "too_many_requests", "server_error", "bad_gateway", "damaged", "web_page", "disconnect",
    "cut_off",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """`path` limits it to requests whose path ends so, `method` to those of one."""

    kind: Kind
    retry_after_s: int = 1
    path: str = ""
    method: str = ""
    late_ms: int = 2000


@dataclass
class Faults:
    waiting: deque[Fault] = field(default_factory=deque)
    # The share of requests that fail at random, by `rng`, and in which ways.
    share: float = 0.0
    kinds: tuple[Kind, ...] = ANY_VENUE
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    left: int = 0
    happened: int = 0

    def add(
        self,
        kind: Kind,
        *,
        times: int = 1,
        retry_after_s: int = 1,
        path: str = "",
        method: str = "",
        late_ms: int = 2000,
    ) -> None:
        fault = Fault(kind, retry_after_s, path, method, late_ms)
        self.waiting.extend(fault for _ in range(times))

    def at_random(self, count: int, *, share: float, kinds: tuple[Kind, ...], seed: int) -> None:
        self.left, self.share, self.kinds = count, share, kinds
        self.rng = random.Random(seed)

    def next(self, path: str, method: str = "GET") -> Fault | None:
        fault: Fault | None = None
        if (
            self.waiting
            and path.endswith(self.waiting[0].path)
            and self.waiting[0].method in ("", method)
        ):
            fault = self.waiting.popleft()
        # Who cannot even learn the time gives up soon, as without a network.
        elif self.left and not path.endswith("time") and self.rng.random() < self.share:
            self.left -= 1
            fault = Fault(
                self.rng.choice(self.kinds), late_ms=self.rng.choice([500, 2000, 4000, 9000])
            )
        self.happened += fault is not None
        return fault


async def failed_reply(
    fault: Fault, request: web.Request, now_ms: int, whole: str
) -> web.StreamResponse:
    """`whole` is the text of the right reply."""
    headers = {"Retry-After": str(fault.retry_after_s)}
    match fault.kind:
        case "too_many_requests":
            text = '{"code":-1003,"msg":"Too many requests; current limit is 2400."}'
            return _reply(429, text, headers)
        case "banned":
            until = now_ms + fault.retry_after_s * 1000
            text = f'{{"code":-1003,"msg":"Way too many requests; IP banned until {until}."}}'
            return _reply(418, text, headers)
        case "server_error":
            return _reply(500, '{"code":-1000,"msg":"An unknown error occurred."}')
        case "bad_gateway":
            return web.Response(
                status=502, text="<html>Bad Gateway</html>", content_type="text/html"
            )
        case "refused_country":
            return _reply(451, '{"code":0,"msg":"Service unavailable from a restricted location"}')
        case "forbidden":  # by the firewall before Binance
            return _reply(403, "<html><h1>403 Forbidden</h1></html>")
        case "damaged":
            return _reply(200, whole[: len(whole) // 2])
        case "web_page":
            return web.Response(text="<html>Maintenance</html>", content_type="text/html")
        case "wrong_shape":
            return _reply(200, '{"retCode":0}')
        case "null":
            return _reply(200, "null")
        case "too_many_without_header":
            return _reply(429, '{"code":-1003,"msg":"Too many requests"}')
        case "bybit_limit":
            text = '{"retCode":10006,"retMsg":"Too many visits!","result":{},"time":0}'
            reset = str(now_ms + fault.retry_after_s * 1000)
            bybit = {"X-Bapi-Limit-Status": "0", "X-Bapi-Limit-Reset-Timestamp": reset}
            return _reply(200, text, bybit)
        case "bybit_system_error":
            return _reply(200, '{"retCode":10016,"retMsg":"System error","result":{},"time":0}')
        case "silence":
            # A transport has no event of its end.
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        case "cut_off":
            response = web.StreamResponse(headers={"Content-Length": str(len(whole) + 10)})
            response.content_type = "application/json"
            await response.prepare(request)
            await response.write(whole.encode())
    # "disconnect" before, and "cut_off" within the reply.
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def _reply(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers=headers, content_type="application/json")
