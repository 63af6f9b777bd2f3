"""Sends requests through ccxt.

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
from contextvars import ContextVar
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from llm_trader.errors import ConfigurationError, ExchangeError, raised_inside
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
# What such a reply says of all further requests from this address.
_BARRING_STATUSES: Final = frozenset({403, 451})
# How long nothing is sent to an exchange that refuses this address, by a process that lives long.
_REFUSED_ADDRESS_S: Final = 600.0
_STATUS: Final = re.compile(r"^\S+ (?:[A-Z]+ \S+ )?(\d{3}) ")
# Binance counts requests by the minute, and bans for two minutes at first.
_USUAL_WAITS_S: Final = {429: 30.0, 418: 120.0}
# Bybit counts over five seconds.
_LONGEST_RESET_S: Final = 10.0
_LIBRARIES: Final = ("ccxt", "aiohttp")
# A refusal of the exchange itself, in its reply.
_CODE: Final = re.compile(r'"(?:code|retCode)":\s*"?(-?\d+)')
# Codes that leave open whether a request was executed.
_OPEN_CODES: Final = frozenset(
    {"-1000", "-1001", "-1006", "-1007", "-1008", "10000", "10016", "170007"}
)
# Refusals of a request for its time: it came late, or our clock is wrong.
CLOCK_CODES: Final = frozenset({"-1021", "10002"})
# A reading of the exchange's clock is wrong by half its round trip at most, and Bybit refuses a
# request from one second ahead.
_QUICK_ROUND_TRIP_MS: Final = 200
# Statuses of a request that was not looked at.
_UNSEEN_STATUSES: Final = frozenset({401, 403, 404, 405, 418, 429, 451})
# The time that a request is signed with, where it is not that of its sending.
_signed_ms: ContextVar[int | None] = ContextVar("signed_ms", default=None)
# The status of the latest reply to this task; ccxt drops it where the reply has a code.
_answered: ContextVar[int | None] = ContextVar("answered", default=None)
_SERVER_ERRORS: Final = 500
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})")
_SHOWN_OF_REPLY: Final = 300

_log = structlog.get_logger(__name__)


class AccountKeys(NamedTuple):
    """Signs requests. `demo` sends them to the exchange's demo account.

    The exchange refuses a request that arrives later than `receive_window_ms` after its time.
    """

    api_key: str
    secret: str
    demo: bool
    receive_window_ms: int

    def __repr__(self) -> str:
        return f"AccountKeys(demo={self.demo})"


class RefusedRequestError(ExchangeError):
    """The exchange has answered that it does not do it; `venue_code` is its code of the reason."""

    def __init__(self, message: str, venue_code: str | None) -> None:
        super().__init__(message, venue_code=venue_code)
        self.venue_code = venue_code


class UnknownOutcomeError(ExchangeError):
    """Nobody knows whether the exchange has done it: no reply, or one that leaves it open."""


class _Failure(NamedTuple):
    """`asked_s` is the wait that the exchange asked for.

    `code` is the exchange's own. `refused`: it has certainly not done what was asked.
    """

    reason: str
    status: int | None = None
    may_pass: bool = True
    asked_s: float | None = None
    code: str | None = None
    refused: bool = False


class _ClockSource(NamedTuple):
    endpoint: str
    read: Callable[[Any], int]


class _Bar(NamedTuple):
    """Why no request is sent until a time."""

    error: ExchangeError
    until_s: float


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
        account: AccountKeys | None = None,
    ) -> None:
        """`addresses` replaces beginnings of the exchange's URLs, such as `https://fapi.x.com`.

        `account` is for requests that the exchange wants signed.

        Raises `ConfigurationError` where the extra `exchange` is not installed.
        """
        self.name = name
        self._config = config
        self._sleep = sleep
        self._rng = rng or Random()
        self._wall_clock = wall_clock
        self._bar: _Bar | None = None
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
        self.ahead_ms = 0
        self._clock_source: _ClockSource | None = None
        if account is not None:
            self._sign_for(account)
        urls = self._exchange.urls["api"]
        self._exchange.urls["api"] = {
            key: readdressed(self._exchange.implode_hostname(url), addresses)
            for key, url in urls.items()
        }

    def _sign_for(self, account: AccountKeys) -> None:
        self._exchange.apiKey, self._exchange.secret = account.api_key, account.secret
        self._exchange.options["recvWindow"] = account.receive_window_ms
        self._exchange.nonce = lambda: _signed_ms.get() or self.venue_now_ms()
        if account.demo:
            self._exchange.enable_demo_trading(True)
        handle_errors = self._exchange.handle_errors

        def note_status(status: int, *rest: Any) -> Any:
            _answered.set(status)
            return handle_errors(status, *rest)

        self._exchange.handle_errors = note_status

    def venue_now_ms(self) -> int:
        """The time of the exchange, `ahead_ms` ahead of ours."""
        return self._now_ms() + self.ahead_ms

    def _now_ms(self) -> int:
        return round(self._wall_clock() * 1000)

    async def set_clock(self, endpoint: str, read: Callable[[Any], int]) -> None:
        """Learns how far the exchange's clock is ahead, from its time in milliseconds.

        Once it is set, it is set again whenever the exchange refuses a request for its time.
        Raises `ExchangeError` where the exchange does not answer.
        """
        self._clock_source = _ClockSource(endpoint, read)
        # Kept apart from `ahead_ms`, which a call at the same time may set.
        readings: list[tuple[int, int]] = []
        for attempt in range(_ATTEMPTS_TO_CONNECT):
            before_ms = self._now_ms()
            try:
                told_ms = await self.send(endpoint, {}, read)
            except UnknownOutcomeError:
                if attempt == _ATTEMPTS_TO_CONNECT - 1 and not readings:
                    raise
                await self._sleep(wait_s(attempt, None, self._rng))
                continue
            after_ms = self._now_ms()
            # Nobody knows when within the round trip it was read.
            readings.append((after_ms - before_ms, told_ms - (before_ms + after_ms) // 2))
            if after_ms - before_ms <= _QUICK_ROUND_TRIP_MS:
                break
        _, self.ahead_ms = min(readings)

    async def _correct_clock(self, failure: _Failure) -> None:
        """Sets the clock after a request was refused for its time, so that the next one passes."""
        if failure.code not in CLOCK_CODES or self._clock_source is None:
            return
        before_ms = self.ahead_ms
        try:
            await self.set_clock(*self._clock_source)
        except ExchangeError as error:
            _log.warning("clock_not_set", exchange=self.name, reason=error.message)
            return
        moved_ms = self.ahead_ms - before_ms
        _log.info("clock_set", exchange=self.name, moved_ms=moved_ms, reason=failure.reason)

    async def close(self) -> None:
        await self._exchange.close()

    async def send(
        self,
        endpoint: str,
        parameters: Mapping[str, Any],
        read: Callable[[Any], T],
        *,
        signed_ms: int | None = None,
    ) -> T:
        """Sends a request that must not be repeated once, as of the exchange's time `signed_ms`.

        Raises `RefusedRequestError` where the exchange has certainly not done it, and
        `UnknownOutcomeError` where that is open.
        """
        token = _signed_ms.set(signed_ms)
        try:
            outcome = await self._attempt(endpoint, parameters, read)
        finally:
            _signed_ms.reset(token)
        if not isinstance(outcome, _Failure):
            return outcome
        text = f"{self.name}, {endpoint}: {outcome.reason}"
        if outcome.refused:
            await self._correct_clock(outcome)
            raise RefusedRequestError(text, outcome.code)
        raise UnknownOutcomeError(text)

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
            if self._bar is not None and self._wall_clock() < self._bar.until_s:
                raise self._bar.error
            outcome = await self._attempt(endpoint, parameters, read)
            if not isinstance(outcome, _Failure):
                return outcome
            reason = outcome.reason
            self._check(outcome, endpoint)
            if attempt == attempts - 1:
                break
            await self._correct_clock(outcome)
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
            f"{self.name} did not answer {endpoint} (attempts: {attempts}): {reason}; "
            "check the network, or run the command again later"
        )

    async def _attempt(
        self, endpoint: str, parameters: Mapping[str, Any], read: Callable[[Any], T]
    ) -> T | _Failure:
        # A request that times out would show the headers of the one before.
        self._exchange.last_response_headers = None
        _answered.set(None)
        try:
            return read(await getattr(self._exchange, endpoint)(dict(parameters)))
        except MalformedReplyError as error:
            return _Failure(f"the reply is damaged: {error}")
        except self._errors.BaseError as error:
            return self._failure(error)
        except Exception as error:
            # ccxt lets through what its parsing stumbles over, such as a list for an object.
            if not raised_inside(error, _LIBRARIES):
                raise
            return _Failure(f"the reply is damaged: {type(error).__name__} {error}")

    def _failure(self, error: Exception) -> _Failure:
        text = str(error)[:_SHOWN_OF_REPLY]
        if error.__cause__ is not None and str(error.__cause__):
            text = f"{text}: {error.__cause__}"
        elif isinstance(error, self._errors.RequestTimeout):
            text = f"{text}: no answer within {self._config.timeout_s:g} s"
        match = _STATUS.match(text)
        status = int(match[1]) if match else None
        final = (
            self._errors.BadRequest,
            self._errors.AuthenticationError,
            self._errors.PermissionDenied,
            self._errors.NotSupported,
            self._errors.InvalidOrder,
            self._errors.InsufficientFunds,
        )
        may_pass = not isinstance(error, final) and status not in _FINAL_STATUSES
        asked_s = self._asked_s(str(error), status)
        code, refused = self._refusal(error, status)
        return _Failure(text, status, may_pass, asked_s, code, refused)

    def _refusal(self, error: Exception, status: int | None) -> tuple[str | None, bool]:
        """The exchange's code, and whether it has certainly not done what was asked.

        ccxt names most reasons after hosts that it knows, so the codes are read here.
        """
        match = _CODE.search(str(error))
        if (_answered.get() or 0) >= _SERVER_ERRORS:
            return None, False
        if status is not None:
            return str(status), status in _UNSEEN_STATUSES
        if match is not None and error.__cause__ is None:
            return match[1], match[1] not in _OPEN_CODES
        named = (self._errors.InvalidOrder, self._errors.InsufficientFunds, self._errors.BadRequest)
        return None, isinstance(error, named)

    def _asked_s(self, reply: str, status: int | None) -> float | None:
        """The wait asked for by a header or a text, or that such a refusal usually takes."""
        headers = {k.lower(): v for k, v in (self._exchange.last_response_headers or {}).items()}
        now_ms = self._wall_clock() * 1000
        if headers.get("retry-after", "").isdigit():
            return float(headers["retry-after"])
        # Bybit sends these with every reply; they matter where the limit is used up. The time is
        # of its own clock, so what it says is bounded.
        reset = headers.get("x-bapi-limit-reset-timestamp", "")
        if reset.isdigit() and headers.get("x-bapi-limit-status") == "0":
            return min(max((int(reset) - now_ms) / 1000, 0.0), _LONGEST_RESET_S)
        if banned := _BANNED_UNTIL.search(reply):
            return max((int(banned[1]) - now_ms) / 1000, 0.0)
        return _USUAL_WAITS_S.get(status or 0)

    def _check(self, failure: _Failure, endpoint: str) -> None:
        """Raises where asking again is of no use; after a ban no request is sent at all."""
        asked_s = failure.asked_s
        if asked_s is not None and asked_s > self._config.max_wait_s:
            until = iso8601(round(self._wall_clock() + math.ceil(asked_s)) * 1000)
            error = ExchangeError(
                f"{self.name} accepts no requests from this address for {asked_s / 60:.0f} "
                f"minutes, until {until}; run the command again after that: {failure.reason}",
                retry_after_s=asked_s,
            )
            self._bar = _Bar(error, self._wall_clock() + asked_s)
            raise error
        if not failure.may_pass:
            refusal = RefusedRequestError(
                f"{self.name} refuses {endpoint}: {failure.reason}", failure.code
            )
            if failure.status in _BARRING_STATUSES:
                self._bar = _Bar(refusal, self._wall_clock() + _REFUSED_ADDRESS_S)
            raise refusal


def readdressed(url: str, addresses: Mapping[str, str]) -> str:
    for beginning, other in addresses.items():
        if url.startswith(beginning):
            return other.rstrip("/") + url.removeprefix(beginning)
    return url
