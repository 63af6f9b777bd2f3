"""What a call of a language model costs beyond its SDK: `python -m benchmarks --only models`.

The same request goes to a stub in a process of its own, through the provider with its price and
budget, and through the bare SDK, in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai

from benchmarks.timing import Figure, in_turn
from llm_trader.llm.budget import check_budget
from llm_trader.llm.config import LlmConfig, ProviderName
from llm_trader.llm.cost import model_prices, settled_usd, worst_case_usd
from llm_trader.llm.model_settings import resolve_model
from llm_trader.llm.providers.connecting import connect_provider
from llm_trader.llm.providers.protocol import Message

_ROUNDS, _CALLS = 12, 25
_MOST_MS = 5.0
_PROMPT = "BTCUSDT: rsi_14 61.2, macd 14.02, ema_20 64211.5; what followed: +0.21 %. " * 80


class _Stub(NamedTuple):
    url: str
    key: str


class _NothingSpent:
    def spent_usd(self, day: date, symbol: str | None = None) -> Decimal:
        return Decimal(0)


def models(folder: Path) -> list[Figure]:
    with _stub() as stub, contextlib.closing(asyncio.new_event_loop()) as loop:
        return [_overhead(loop, stub, provider) for provider in ("anthropic", "openai")]


def _overhead(loop: asyncio.AbstractEventLoop, stub: _Stub, provider: ProviderName) -> Figure:
    def repeated(call: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
        async def calls() -> None:
            for _ in range(_CALLS):
                await call()

        return lambda: loop.run_until_complete(calls())

    ours, close = _our_call(stub, provider)
    bare = _anthropic_call(stub) if provider == "anthropic" else _openai_call(stub)
    pair = in_turn(repeated(ours), repeated(bare), _ROUNDS, 1)
    loop.run_until_complete(close())
    more_ms = (pair.subject_s - pair.floor_s) / _CALLS * 1000
    sdk_ms = pair.floor_s / _CALLS * 1000
    return Figure(
        f"a call of {provider} with price and budget: CPU beyond its SDK, ms (against the SDK)",
        f"{more_ms:.2f} ({pair.ratio:.2f} x {sdk_ms:.2f})",
        f"{_MOST_MS:g} ms",
        more_ms < _MOST_MS,
    )


def _our_call(stub: _Stub, provider: ProviderName) -> tuple[Callable[[], Any], Callable[[], Any]]:
    base_url = stub.url if provider == "anthropic" else f"{stub.url}/v1"
    config = LlmConfig(provider=provider, base_url=base_url, requests_per_minute=100_000)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    model = resolve_model(config, today)
    prices = model_prices(config, model, today)
    environ = {"ANTHROPIC_API_KEY": stub.key, "OPENAI_API_KEY": stub.key}
    connection = connect_provider(config, model, environ)
    limit_usd = Decimal(str(config.daily_budget_usd))

    async def call() -> None:
        request = model.request("Decide.", (Message("user", _PROMPT),), None)
        worst_usd = worst_case_usd(request, prices)
        check_budget(_NothingSpent(), today, needed_usd=worst_usd, limit_usd=limit_usd)
        reply = await connection.complete(request, deadline_s=model.deadline_s)
        settled_usd(request, prices, reply)

    return call, connection.close


def _anthropic_call(stub: _Stub) -> Callable[[], Coroutine[Any, Any, object]]:
    client = anthropic.AsyncAnthropic(api_key=stub.key, base_url=stub.url)

    async def call() -> None:
        events = await client.messages.create(
            model="claude-haiku-5-5",
            max_tokens=16_000,
            system=[{"type": "text", "text": "Decide.", "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": _PROMPT}],
            stream=True,
        )
        async for _ in events:
            pass

    return call


def _openai_call(stub: _Stub) -> Callable[[], Coroutine[Any, Any, object]]:
    client = openai.AsyncOpenAI(api_key=stub.key, base_url=f"{stub.url}/v1")

    async def call() -> None:
        events = await client.responses.create(
            model="gpt-6-luna",
            input=[
                {"role": "developer", "content": "Decide."},
                {"role": "user", "content": _PROMPT},
            ],
            max_output_tokens=16_000,
            store=False,
            stream=True,
        )
        async for _ in events:
            pass

    return call


@contextlib.contextmanager
def _stub() -> Iterator[_Stub]:
    command = [sys.executable, "-m", "tests.llm.stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, _, key = process.stdout.readline().split()
            yield _Stub(url, key)
        finally:
            process.terminate()
