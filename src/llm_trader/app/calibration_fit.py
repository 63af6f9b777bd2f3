"""Fits calibrations from a market store. A server does not import this module."""

from __future__ import annotations

import time
from pathlib import Path

from llm_trader.app.evaluation import refuse_without_extra, search_of
from llm_trader.app.ingestion import spaces_of
from llm_trader.app.job import Job
from llm_trader.evaluation.calibration_study import calibration_study
from llm_trader.evaluation.conformal.calibration_fit import Fit, fit
from llm_trader.evaluation.dataset import read_dataset
from llm_trader.evaluation.result_files import refuse_unwritable, write_study
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.market.store import MarketStore
from llm_trader.progress import labelled
from llm_trader.retrieval.calibration import Calibration, write_calibration
from llm_trader.timeframe import Millis, iso8601


def calibrate(
    job: Job,
    symbols: list[str],
    start_ms: Millis,
    end_ms: Millis,
    *,
    holdout: float,
    seed: int,
    out: Path,
    report: Path | None,
) -> Calibration:
    """Fit a calibration and write it to a file, and its report to a folder if one is named."""
    started_s = time.monotonic()
    # What cannot be written is refused before minutes of work, not after them.
    if report is not None:
        refuse_without_extra("jinja2", "plotly", remedy=", or use --no-report")
        refuse_unwritable(report)
    refuse_unwritable(out.parent)
    fitted = calibrate_from_store(job, symbols, start_ms, end_ms, holdout=holdout, seed=seed)
    write_calibration(fitted.calibration, out)
    if report is not None:
        study = calibration_study(
            fitted,
            search_of(job.settings.retrieval),
            trials_so_far=len(Ledger(report).configurations()),
            seconds=time.monotonic() - started_s,
            settings_digest=job.settings.digest(),
        )
        write_study(study, report)
    return fitted.calibration


def calibrate_from_store(
    job: Job, symbols: list[str], start_ms: Millis, end_ms: Millis, *, holdout: float, seed: int
) -> Fit:
    """Fit for the search that a server with these settings does; no symbols means all."""
    settings = job.settings
    interval_ms = settings.snapshot.interval_ms
    search = search_of(settings.retrieval)
    with MarketStore.open(settings.market.store) as store:
        named = symbols or store.symbols()
        spaces = spaces_of(settings, store, named)
        dataset = read_dataset(
            store,
            spaces,
            named,
            start_ms,
            end_ms,
            lookback_days=search.lookback_days,
            interval_ms=interval_ms,
            now_ms=job.now_ms,
            progress=labelled(job.progress, "reading"),
        )
    return fit(
        dataset,
        spaces,
        search,
        step_ms=interval_ms,
        holdout=holdout,
        seed=seed,
        created_at=iso8601(job.now_ms),
        progress=labelled(job.progress, "searching"),
    )
