"""Is it better than nothing? A plan and a market store to an evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_trader.app.calibration_fit import search_of
from llm_trader.app.indexes import index_to_read, refuse_another_exchange
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.dataset import WARM_UP_DAYS, Dataset, read_dataset, read_index
from llm_trader.evaluation.plan import StudyPlan, read_plan
from llm_trader.evaluation.study import Running, Study, variant_of
from llm_trader.evaluation.symbol_study import Subject
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.evaluation.workers import cores
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, iso8601, parse_end, parse_start

_NEEDED: Final = {
    "arch": "tests of many models at once",
    "jinja2": "reports",
    "plotly": "reports",
}
_BY_STATE: Final = (STATE, "random")

Ask = Callable[[Subject, Running], Study]


def plan_of(settings: Settings, path: Path | None, given: Mapping[str, Any]) -> StudyPlan:
    """The plan of a file; what it leaves out is searched as the server does, `given` goes first."""
    search = search_of(settings.retrieval)
    served = {
        "step_minutes": settings.snapshot.interval_minutes,
        "search": msgspec.to_builtins(search),
    }
    return read_plan(path, served, given)


def study_of(
    settings: Settings,
    environ: Mapping[str, str],
    plan: StudyPlan,
    ask: Ask,
    *,
    vectors: Sequence[str] = (),
    out: Path,
    indexed: bool = False,
    jobs: int | None = None,
    now_ms: Millis,
    reading: Progress,
    working: Progress,
) -> Study:
    """Read what is needed, and have `ask` answer.

    Vectors are made anew from the store; by text, or with `indexed`, they are those of the index.
    """
    refuse_without_extra()
    interval_minutes = settings.snapshot.interval_minutes
    if plan.step_minutes % interval_minutes:
        raise InvalidInputError(
            f"a step of {plan.step_minutes} minutes is no multiple of the {interval_minutes} from "
            "one state to the next (snapshot.interval_minutes)"
        )
    if plan.aggregator.horizon not in plan.rules:
        raise InvalidInputError(
            f"the aggregator decides by {plan.aggregator.horizon}, for which there is no rule"
        )
    plans = [plan, *plan.variants().values(), *(variant_of(plan, name) for name in vectors)]
    lookback_days = max(of.search.lookback_days for of in plans)
    indexed = indexed or any(of.search.vector not in _BY_STATE for of in plans)
    with MarketStore.open(settings.market.store) as store:
        symbols = list(plan.symbols) or store.symbols()
        space = StateSpace(intraday_timeframe(settings, store, symbols))
        span = _span(store, symbols, space, plan, lookback_days, now_ms)
        if indexed:
            dataset = asyncio.run(
                _from_index(settings, environ, store, space, symbols, span, lookback_days)
            )
            if dataset.text_space_id is None:
                _refuse_texts(plans)
        else:
            dataset = read_dataset(
                store,
                Spaces(space),
                symbols,
                *span,
                lookback_days=lookback_days,
                interval_ms=interval_minutes * MINUTE_MS,
                progress=reading,
            )
    subject = Subject(dataset.asked(plan.step_ms), settings.market.store)
    return ask(subject, Running(Ledger(out), jobs or cores(), working, iso8601(now_ms)))


async def _from_index(
    settings: Settings,
    environ: Mapping[str, str],
    store: MarketStore,
    space: StateSpace,
    symbols: list[str],
    span: tuple[Millis, Millis],
    lookback_days: int,
) -> Dataset:
    async with index_to_read(settings, environ) as index:
        refuse_another_exchange(store, index)
        return await read_index(index, space, symbols, *span, lookback_days=lookback_days)


def _refuse_texts(plans: Sequence[StudyPlan]) -> None:
    wanted = {of.search.vector for of in plans if of.search.vector not in _BY_STATE}
    if wanted:
        raise InvalidInputError(
            f"the index has no text vectors, which {' and '.join(sorted(wanted))} needs: name one "
            "with --index that was made with rag-ingest --text, or leave text, hybrid and "
            "prototype out"
        )


def _span(
    store: MarketStore,
    symbols: list[str],
    space: StateSpace,
    plan: StudyPlan,
    lookback_days: int,
    now_ms: Millis,
) -> tuple[Millis, Millis]:
    """The first and the last time asked about; by default all that has a whole lookback."""
    spans = [store.first_and_last_ms(symbol, space.intraday) for symbol in symbols]
    stored = [of for of in spans if of]
    end_ms = min([parse_end(plan.end, now_ms), *(last_ms for _, last_ms in stored)])
    if plan.start is not None:
        start_ms = parse_start(plan.start, now_ms)
    else:
        first_ms = max((first_ms for first_ms, _ in stored), default=end_ms)
        start_ms = first_ms + (WARM_UP_DAYS + lookback_days) * DAY_MS
    if start_ms >= end_ms:
        raise InvalidInputError(
            f"nothing to evaluate from {iso8601(start_ms)} to {iso8601(end_ms)}, where the data "
            "end: give an earlier --start, or import more; without --start it begins when a whole "
            f"lookback of {lookback_days} days is known (--lookback-days)"
        )
    # On the step, so that what is asked again from its first to its last query reads the same.
    return start_ms + -start_ms % plan.step_ms, end_ms - end_ms % plan.step_ms


def refuse_without_extra(*names: str, remedy: str = "") -> None:
    """Raises `ConfigurationError` now, and not after minutes of work."""
    for name in names or _NEEDED:
        if find_spec(name) is None:
            raise ConfigurationError(
                f'{_NEEDED[name]} need {name}: pip install "llm-trader-rag[eval]"{remedy}'
            )
