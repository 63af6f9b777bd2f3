"""The files of an evaluation: `metrics.json`, `steps.csv`, `trades.csv` and `report.html`.

Each is written whole beside its place and then put there, so a reader never sees half of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.report import write_report
from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.steps import write_steps, write_trades
from llm_trader.evaluation.study import Study

METRICS: Final = "metrics.json"
STEPS: Final = "steps.csv"
TRADES: Final = "trades.csv"
REPORT: Final = "report.html"


def write_study(study: Study, folder: Path) -> list[Path]:
    """The files, in the order written. Raises `ConfigurationError` where that cannot be."""
    steps = [one for of in study.examined for one in of.steps]
    traded = [(of.symbol, one) for of in study.examined for one in of.traded]
    files: dict[str, Callable[[Path], None]] = {
        METRICS: partial(_write_metrics, study.metrics),
        STEPS: partial(write_steps, steps),
        TRADES: partial(write_trades, traded),
        REPORT: partial(write_report, study.metrics),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_written(folder / name, write) for name, write in files.items()]
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from None


def _written(path: Path, write: Callable[[Path], None]) -> Path:
    half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(half)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return path


def _write_metrics(metrics: Metrics, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n")
