"""Sends requests through ccxt, the only module that uses it.

ccxt knows the addresses, keeps to the rate limit of each endpoint and names what went wrong. What
it does not do is here: waiting as long as the exchange asks, asking again, and never believing a
reply that is not whole.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from llm_trader.errors import ConfigurationError, ExchangeError
from llm_trader.market.exchange.backoff import wait_s
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.replies import MalformedReplyError
from llm_trader.timeframe import iso8601

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

# While connecting, a person waits to hear that there is no network.
_ATTEMPTS_TO_CONNECT: Final = 3
# Statuses that the same request would only get again.
_FINAL_STATUSES: Final = frozenset({401, 403, 404, 407, 451})
_STATUS: Final = re.compile(r"^\S+ \S+ \S+ (\d{3}) ")
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})")
_SHOWN_OF_REPLY: Final = 300

_log = structlog.get_logger(__name__)


class _Failure(NamedTuple):
    """`asked_s` is the wait that the exchange asked for."""

    reason: str
    may_pass: bool
    asked_s: float | None = None


class ExchangeClient:
    """One exchange's HTTP interface. `close` it in the event loop that it was used in."""

    def __init__(
        self,
        name: str,
        library: str,
        addresses: Mapping[str, str],
        config: ExchangeConfig,
        *,
        sleep: Sleep = asyncio.sleep,
        rng: Random | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`addresses` replaces beginnings of the exchange's URLs, such as `https://fapi.x.com`.

        Raises `ConfigurationError` where the extra `exchange` is not installed.
        """
        self.name = name
        self._config = config
        self._sleep = sleep
        self._rng = rng or Random()
        self._wall_clock = wall_clock
        self._barred: ExchangeError | None = None
        try:
            ccxt = importlib.import_module("ccxt.async_support")
        except ImportError as error:
            raise ConfigurationError(
                f"fetching from {name} needs ccxt ({error}): pip install 'llm-trader-rag[exchange]'"
            ) from None
        self._errors: Any = importlib.import_module("ccxt.base.errors")
        options = {
            "timeout": round(config.timeout_s * 1000),
            # Proxies of the environment, such as HTTPS_PROXY.
            "aiohttp_trust_env": True,
        }
        self._exchange: Any = getattr(ccxt, library)(options)
        urls = self._exchange.urls["api"]
        self._exchange.urls["api"] = {
            key: _readdressed(self._exchange.implode_hostname(url), addresses)
            for key, url in urls.items()
        }

    async def close(self) -> None:
        await self._exchange.close()

    async def ask(
        self,
        endpoint: str,
        parameters: Mapping[str, Any],
        read: Callable[[Any], T],
        *,
        connecting: bool = False,
    ) -> T:
        """What `read` makes of a reply; it raises `MalformedReplyError` where that is not whole.

        Raises `ExchangeError` when the exchange refuses, bans, or keeps failing.
        """
        attempts = self._config.max_attempts
        if connecting:
            attempts = min(attempts, _ATTEMPTS_TO_CONNECT)
        reason = ""
        for attempt in range(attempts):
            if self._barred is not None:
                raise self._barred
            outcome = await self._attempt(endpoint, parameters, read)
            if not isinstance(outcome, _Failure):
                return outcome
            reason = outcome.reason
            self._check_wait(outcome)
            if not outcome.may_pass:
                raise ExchangeError(f"{self.name} refuses {endpoint}: {reason}")
            if attempt == attempts - 1:
                break
            seconds = wait_s(attempt, outcome.asked_s, self._rng)
            _log.info(
                "asking_again",
                exchange=self.name,
                endpoint=endpoint,
                wait_s=round(seconds, 1),
                reason=reason,
            )
            await self._sleep(seconds)
        raise ExchangeError(
            f"{self.name} did not answer {endpoint} in {attempts} attempts: {reason}; "
            "check the network, or run the command again later"
        )

    async def _attempt(
        self, endpoint: str, parameters: Mapping[str, Any], read: Callable[[Any], T]
    ) -> T | _Failure:
        # A request that times out would show the headers of the one before.
        self._exchange.last_response_headers = None
        try:
            return read(await getattr(self._exchange, endpoint)(dict(parameters)))
        except MalformedReplyError as error:
            return _Failure(f"the reply is damaged: {error}", may_pass=True)
        except self._errors.BaseError as error:
            return self._failure(error)

    def _failure(self, error: Exception) -> _Failure:
        text = str(error)[:_SHOWN_OF_REPLY]
        if error.__cause__ is not None and str(error.__cause__):
            text = f"{text}: {error.__cause__}"
        elif isinstance(error, self._errors.RequestTimeout):
            text = f"{text}: no answer within {self._config.timeout_s:g} s"
        status = _STATUS.match(text)
        final = (
            self._errors.BadRequest,
            self._errors.AuthenticationError,
            self._errors.PermissionDenied,
            self._errors.NotSupported,
        )
        refused = isinstance(error, final) or (
            status is not None and int(status[1]) in _FINAL_STATUSES
        )
        return _Failure(text, not refused, self._asked_s(str(error)))

    def _asked_s(self, reply: str) -> float | None:
        """The wait asked for by Retry-After, by Bybit's header or by the text of Binance."""
        headers = {k.lower(): v for k, v in (self._exchange.last_response_headers or {}).items()}
        waits = []
        if headers.get("retry-after", "").strip().isdigit():
            waits.append(float(headers["retry-after"]))
        now_ms = self._wall_clock() * 1000
        # Bybit sends the header with every reply; it matters where a limit was exceeded.
        reset = headers.get("x-bapi-limit-reset-timestamp", "")
        if reset.isdigit() and headers.get("x-bapi-limit-status") == "0":
            waits.append((int(reset) - now_ms) / 1000)
        if banned := _BANNED_UNTIL.search(reply):
            waits.append((int(banned[1]) - now_ms) / 1000)
        return max((w for w in waits if w > 0), default=None)

    def _check_wait(self, failure: _Failure) -> None:
        """Raises when the exchange asks for too long a wait; from then on no request is sent."""
        asked_s = failure.asked_s
        if asked_s is None or asked_s <= self._config.max_wait_s:
            return
        until = iso8601(round(self._wall_clock() + math.ceil(asked_s)) * 1000)
        self._barred = ExchangeError(
            f"{self.name} accepts no requests from this address for {asked_s / 60:.0f} minutes, "
            f"until {until}; run the command again after that: {failure.reason}",
            retry_after_s=asked_s,
        )
        raise self._barred


def _readdressed(url: str, addresses: Mapping[str, str]) -> str:
    for beginning, other in addresses.items():
        if url.startswith(beginning):
            return other.rstrip("/") + url.removeprefix(beginning)
    return url
