"""Where a server keeps its journal of forecasts, and what it does where it cannot."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog

from llm_trader.app.request_observers import served_forecasts
from llm_trader.errors import ConfigurationError
from llm_trader.forecasts.served import ServedForecasts
from llm_trader.settings.loading import load_settings
from tests.forecasts.builders import NOW_MS, SYMBOL, Clock, all_lines, answer


async def opened(stack: AsyncExitStack, data: Path, **given: Any) -> ServedForecasts | None:
    overrides = {"index.path": data / "index"} | {f"forecasts.{k}": v for k, v in given.items()}
    settings = load_settings(environ={}, overrides=overrides)
    return served_forecasts(settings, None, Clock(), stack)


async def test_a_journal_is_kept_beside_the_index_unless_settings_say_otherwise(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        forecasts = await opened(stack, tmp_path)
        assert forecasts is not None
        forecasts.served(SYMBOL, NOW_MS, answer(), "r-1")
        assert [line.request_id for line in all_lines(tmp_path / "forecasts")] == ["r-1"]
        elsewhere = await opened(stack, tmp_path, folder=tmp_path / "elsewhere")
        assert elsewhere is not None
        assert (tmp_path / "elsewhere").is_dir()
        assert await opened(stack, tmp_path, journal=False) is None


async def test_a_folder_that_cannot_be_written_stops_a_server_only_if_somebody_named_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "forecasts").write_text("a file")
    async with AsyncExitStack() as stack:
        with structlog.testing.capture_logs() as logs:
            assert await opened(stack, tmp_path) is None
        assert [log["event"] for log in logs] == ["forecasts_not_recorded"]
        with pytest.raises(ConfigurationError, match="cannot write to"):
            await opened(stack, tmp_path, folder=tmp_path / "forecasts")
