from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from llm_trader.cli.pipeline import calibrate
from llm_trader.errors import InvalidInputError
from llm_trader.retrieval.calibration import read_calibration
from tests.cli.corridor import SYMBOL, Corridor

# Long enough for the 200 neighbours of a forecast, which are an hour apart.
SETTINGS = """
[retrieval]
lookback_days = 14
include_regime_filters = false
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llm-trader.toml"
    path.write_text(SETTINGS)
    return path


def run(corridor: Corridor, config: Path, *more: str) -> Result:
    alone = typer.Typer()
    alone.command()(calibrate)
    given = ["--store", str(corridor.store), "--config", str(config), "--symbols", SYMBOL]
    times = ["--start", "2025-02-04T00:00:00Z", "--end", "2025-02-28T00:00:00Z"]
    if "--report" not in more:
        more = (*more, "--no-report")
    arguments = [*given, *times, "--interval", "60", "--holdout", "0.4", *more]
    return CliRunner(env={"COLUMNS": "120"}).invoke(alone, arguments)


def test_it_writes_the_file_and_shows_what_was_measured(
    corridor: Corridor, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "calibration.json"
    ran = run(corridor, config, "--out", str(out))
    assert ran.exit_code == 0, ran.output
    made = read_calibration(out)
    assert f"Calibration {made.digest}" in ran.stdout
    for name, of in made.horizons.items():
        (line,) = [li for li in ran.stdout.splitlines() if li.split()[:1] == [name]]
        assert f"{of.margins.base:+.4f}" in line
        assert f"{of.coverage_after.value:.1%}" in line
    assert "Use it from 2025-03-01 00:00 on" in ran.stdout


def test_the_report_tells_what_was_measured(
    corridor: Corridor, config: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "calibration.json", tmp_path / "report"
    ran = run(corridor, config, "--out", str(out), "--report", str(report))
    assert ran.exit_code == 0, ran.output
    made, metrics = read_calibration(out), json.loads((report / "metrics.json").read_text())
    assert metrics["command"] == "calibrate"
    assert metrics["origin"]["data_digest"] == made.data_digest
    bands = {band["horizon"]: band["after"]["value"] for band in metrics["bands"]}
    assert bands == {name: of.coverage_after.value for name, of in made.horizons.items()}
    steps = (report / "steps.csv").read_text().splitlines()
    assert steps[0].startswith("variant,symbol,time,horizon,band_score")
    assert steps[0].endswith("crps_forecast,crps_volatility_model")
    cells = {
        (cell["horizon"], cell["by"], cell["value"]): (
            cell["before"],
            cell["after"],
            cell["queries"],
        )
        for cell in metrics["band_cells"]
    }
    assert cells == {
        (name, by, value): (share.before, share.after, share.queries)
        for name, of in made.horizons.items()
        for by, division in (
            ("expected / last 24h", of.by_volatility_ratio),
            ("hour (UTC)", of.by_hours),
            ("symbol", of.by_symbol),
        )
        for value, share in division.items()
    }
    assert (report / "report.html").stat().st_size > 1_000_000


@pytest.mark.soak
def test_json_is_the_file_and_equal_runs_give_equal_ones(
    corridor: Corridor, config: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / name for name in ("one.json", "two.json")]
    printed = [run(corridor, config, "--out", str(out), "--json").stdout for out in outs]
    for text, out in zip(printed, outs, strict=True):
        assert json.loads(text) == json.loads(out.read_text())
    one, two = (json.loads(text) | {"created_at": ""} for text in printed)
    assert one == two


def test_too_short_a_time_is_refused_and_writes_nothing(
    corridor: Corridor, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "calibration.json"
    ran = run(corridor, config, "--out", str(out), "--start", "2025-02-20T00:00:00Z")
    assert isinstance(ran.exception, InvalidInputError)
    assert "give a longer time" in ran.exception.message
    assert not out.exists()
