"""Deciders that ask the stub, as the command line sets them up."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice, llm_decider, new_recorder
from llm_trader.llm.llm_decider import LlmDecider
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import Millis
from tests.llm.stub.server import TEST_KEY, StubServer

NOW_MS: Millis = 1_796_000_000_000  # 2026-11-30
TODAY = datetime.date(2026, 11, 30)
_BY_SETTINGS = DeciderChoice()
REPLY = '{"reasoning": "It rose.", "action": "LONG", "confidence": 0.7, "stop_pct": -1.5}'


def job_at(stub: StubServer | str, folder: Path, **settings: Any) -> Job:
    """The surroundings of a command that asks the stub; settings as in `llm__timeout_s`."""
    url = stub if isinstance(stub, str) else stub.url
    given = {
        "decisions__record": folder,
        "llm__provider": "anthropic",
        "llm__base_url": url
        if settings.get("llm__provider", "anthropic") == "anthropic"
        else f"{url}/v1",
        "llm__requests_per_minute": 100_000,
        "llm__timeout_s": 5.0,
        "llm__deadline_s": 10.0,
    } | settings
    flags = {name.replace("__", "."): value for name, value in given.items()}
    environ = {"ANTHROPIC_API_KEY": TEST_KEY, "OPENAI_API_KEY": TEST_KEY}
    return Job(load_settings(environ={}, overrides=flags), environ, NOW_MS)


@asynccontextmanager
async def decider_at(
    stub: StubServer,
    record: DecisionRecord,
    choice: DeciderChoice = _BY_SETTINGS,
    **settings: Any,
) -> AsyncIterator[LlmDecider]:
    job = job_at(stub, record.path.parent, **settings)
    recorder = new_recorder(job, record, "test", lambda: NOW_MS, {"state_space": "state-1"})
    async with llm_decider(job, choice, record, recorder) as decider:
        yield decider
