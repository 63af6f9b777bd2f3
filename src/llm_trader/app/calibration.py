"""The calibration of a server's evidence."""

from __future__ import annotations

import structlog

from llm_trader.index.protocol import Collection
from llm_trader.retrieval.calibration import LoadedCalibration, read_calibration, scope_of
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import iso8601


def loaded_calibration(settings: Settings) -> LoadedCalibration | None:
    """None if none is set. Raises `ConfigurationError` if the file is not a calibration."""
    path = settings.retrieval.calibration
    if path is None:
        return None
    return LoadedCalibration(read_calibration(path), settings.retrieval.max_calibration_age_days)


def log_loaded(loaded: LoadedCalibration | None, index: Collection, defaults: SearchSpec) -> None:
    """Log the calibration, and why queries will not use it, if so; each reply says so, too."""
    if loaded is None:
        return
    calibration, log = loaded.calibration, structlog.get_logger(__name__)
    log.info(
        "calibration_loaded", digest=calibration.digest, known_by=iso8601(calibration.known_by_ms)
    )
    for symbol in calibration.scope.symbols[:1]:
        if objections := loaded.scope_objections(scope_of(index, symbol, defaults)):
            log.warning("calibration_not_used", digest=calibration.digest, because=objections)
