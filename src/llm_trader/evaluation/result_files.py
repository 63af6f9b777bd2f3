"""Writes the files of an evaluation: `metrics.json`, `steps.csv`, `trades.csv`, `report.html`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.csv_tables import write_steps, write_trades
from llm_trader.evaluation.report.page import write_report
from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.study import Study
from llm_trader.storage.files import write_all_atomically

METRICS: Final = "metrics.json"
STEPS: Final = "steps.csv"
TRADES: Final = "trades.csv"
REPORT: Final = "report.html"


def write_study(study: Study, folder: Path) -> list[Path]:
    """Write the files and return their paths.

    Raises `ConfigurationError` where the folder cannot be written to.
    """
    files: dict[str, Callable[[Path], None]] = {
        METRICS: partial(_write_metrics, study.metrics),
        STEPS: partial(write_steps, study.steps),
        TRADES: partial(write_trades, study.backtests),
        REPORT: partial(write_report, study.metrics),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_all_atomically(folder, files)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from None
    return [folder / name for name in files]


def refuse_unwritable(folder: Path) -> None:
    """Raises `ConfigurationError` before minutes of work are lost."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise ConfigurationError(f"cannot write to {folder}: {nearest} is no writable folder")


def _write_metrics(metrics: Metrics, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n")
