"""`llm-trader query` against a real server, and `rag-rpc-server` that refuses to start."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import msgspec
import pytest

from llm_trader.cli import options
from llm_trader.cli.output import price_text
from llm_trader.serving.wire import REQUIRED_STATE
from llm_trader.timeframe import DAY_MS, iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import (
    AT_MS,
    END_MS,
    SYMBOL,
    WARM_MS,
    Corridor,
    serving_process,
)

ASK = f"llm-trader query --symbol {SYMBOL} --at {iso8601(AT_MS)} --port"


def test_an_answer_starts_with_the_verdict_in_one_sentence(
    typed: Typing, served_port: int, corridor: Corridor
) -> None:
    ran = typed(ASK, served_port)
    assert (ran.code, ran.err) == (0, "")
    answer = typed(ASK, served_port, "--json").json
    horizon = answer["evidence"]["horizons"]["24h"]
    price = corridor.fields_at(AT_MS, "price")["price"]
    low, high = (price * (1 + horizon["forecast"]["quantiles"][end] / 100) for end in (9, 89))
    sentence = " ".join(ran.out.partition("\n\n")[0].split())
    assert sentence.startswith(
        f"Verdict: {answer['evidence']['verdict']}; {SYMBOL} at {price_text(price)} USDT should "
    )
    assert f"move ±{horizon['expected_volatility_pct']:.2f} % in 24h, 8 times in 10" in sentence
    assert f"between {price_text(low)} and {price_text(high)} USDT" in sentence
    assert sentence.endswith(f"{answer['evidence']['reason'].partition(';')[0]}.")
    assert sentence.count(".") == len(re.findall(r"\d\.\d", sentence)) + 1


def test_after_the_verdict_come_four_rows_of_what_to_expect_and_then_the_matches(
    typed: Typing, served_port: int
) -> None:
    answer = typed(ASK, served_port, "--json").json
    verdict, outlook, _, matches, data = typed(ASK, served_port).out.rstrip().split("\n\n")
    assert verdict.startswith("Verdict: ")
    rows = [re.split(" {2,}", row.strip()) for row in outlook.splitlines()[1:6]]
    assert rows[0] == ["next", "expected move", "range now", "usual range", "P(up)", "base"]
    for row, (name, horizon) in zip(rows[1:], answer["evidence"]["horizons"].items(), strict=True):
        quantiles = horizon["forecast"]["quantiles"]
        assert row == [
            name,
            f"±{horizon['expected_volatility_pct']:.2f} %",
            f"{quantiles[9]:+.2f} to {quantiles[89]:+.2f} %",
            f"{horizon['p10']['base_rate']:+.2f} to {horizon['p90']['base_rate']:+.2f} %",
            f"{100 * horizon['forecast']['p_up']:.0f} %",
            f"{100 * horizon['p_up']['base_rate']:.0f} %",
        ]
    dates = re.findall(r"^(2025-\d\d-\d\d \d\d:\d\d)  ", matches, re.MULTILINE)
    assert len(dates) == 5
    assert f"{SYMBOL} at {iso8601(AT_MS)}: state of " in data
    assert "--verbose" in data


def test_verbose_adds_the_state_the_evidence_and_the_search(
    typed: Typing, served_port: int
) -> None:
    short, shown = typed(ASK, served_port).out, typed(ASK, served_port, "-v").out
    parts = (
        *("Realised volatility of 24h", "RSI(14), 0 to 100", "Funding rate per settlement"),
        *("90% interval", "10 % are below", "Touched first within 24h", "highest in 1h"),
        *("Reason of the verdict: ", "Novelty: ", "State from store"),
        *(f"Next {name}, change in %" for name in ("15m", "1h", "4h", "24h")),
    )
    for part in parts:
        assert part in shown
        assert part not in short
    assert "None" not in shown


@pytest.mark.parametrize(
    "columns",
    [30, 80, 200, *(pytest.param(width, marks=pytest.mark.soak) for width in (44, 60, 114))],
)
@pytest.mark.parametrize("flags", ["", "--verbose --stop-pct 1 --target-pct 2"])
def test_an_answer_fits_the_width_of_the_terminal_and_cuts_no_number(
    typed: Typing, monkeypatch: pytest.MonkeyPatch, served_port: int, columns: int, flags: str
) -> None:
    outputs = {}
    for width in (columns, 500):
        monkeypatch.setenv("COLUMNS", str(width))
        outputs[width] = typed(ASK, served_port, *flags.split()).out
    assert "…" not in outputs[columns]
    assert max(len(row.rstrip()) for row in outputs[columns].splitlines()) <= columns
    number = re.compile(r"[+-]?\d[\d,]*\.\d+")
    # What takes another time in each run, and the picture, for which a terminal may be too narrow.
    of_this_run = re.compile(r"Answered in .*|The last and the next 24 .*?\n\n", re.DOTALL)
    numbers = [set(number.findall(of_this_run.sub("", text))) for text in outputs.values()]
    assert numbers[0] == numbers[1]


def test_options_reach_the_server_and_json_is_the_answer_itself(
    typed: Typing, served_port: int
) -> None:
    options = "--json --top-k 2 --lookback-days 20 --min-similarity 0.1 --no-regime-filters"
    answer = typed(f"{ASK} {served_port} {options}").json
    assert len(answer["matches"]) == 2
    assert all(match["timestamp"] >= AT_MS - 20 * DAY_MS for match in answer["matches"])
    assert answer["metadata"]["filters_applied"] == ["symbol", "timerange", "resolved_at"]
    assert answer["metadata"]["as_of"] == AT_MS


def test_the_dates_shown_are_those_of_the_json(typed: Typing, served_port: int) -> None:
    answer = typed(ASK, served_port, "--json").json
    shown = typed(ASK, served_port).out
    for match in answer["matches"]:
        assert f"{match['date'][:10]} {match['date'][11:16]}  " in shown
        assert f"{match['similarity']:.3f}" in shown


def test_a_state_can_be_sent_from_a_file(
    typed: Typing, served_port: int, corridor: Corridor, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(corridor.fields_at(AT_MS, *REQUIRED_STATE)))
    answer = typed(f"{ASK} {served_port} --json --state {path}").json
    assert answer["metadata"]["state_source"] == "request+store"
    assert "State from request+store" in typed(f"{ASK} {served_port} -v --state {path}").out
    path.write_bytes(msgspec.json.encode([1, 2]))
    assert "is not a JSON object of state fields" in typed(f"{ASK} 1 --state {path}").err
    assert "cannot read" in typed(f"{ASK} 1 --state {tmp_path / 'none'}").err


def test_a_warning_of_the_server_is_shown(
    typed: Typing, served_port: int, corridor: Corridor, tmp_path: Path
) -> None:
    fields = corridor.fields_at(AT_MS, *REQUIRED_STATE)
    path = tmp_path / "state.json"
    path.write_text(json.dumps({**fields, "price": fields["price"] * 1.5}))
    shown = typed(f"{ASK} {served_port} --min-similarity 0 --verbose --state {path}").out
    assert "\nWarning: nothing was completed: price" in shown
    assert "features missing" in shown


def test_with_nothing_listening_the_error_names_the_program_to_start(typed: Typing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ran = typed(ASK, port)
    assert (ran.code, ran.out) == (2, "")
    told = f"nothing listens on 127.0.0.1:{port}; start it with: rag-rpc-server --host 127.0.0.1"
    assert told in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--symbol DOGEUSDT --at {at}", ["'DOGEUSDT'; available: BTCUSDT, ETHUSDT"]),
        ("--symbol btc?usdt --at {at}", ["symbol"]),
        (
            "--symbol BTCUSDT --at {at} --min-similarity 0.999",
            [
                "0 similar past states found, 3 required",
                "try increasing --lookback-days (90), or reducing --min-similarity (0.999)",
            ],
        ),
        (
            "--symbol BTCUSDT --at {at} --top-k 99 --lookback-days 0",
            ["  --lookback-days expected int >= 1", "  --top-k expected"],
        ),
        (
            "--symbol BTCUSDT --at {late}",
            [f"it closed at {iso8601(END_MS)}, 60 minutes before", "or give it with --state"],
        ),
        (
            "--symbol BTCUSDT --at {early}",
            ["fewer than 120 4h candles before it without a long hole or jump"],
        ),
        ("--symbol BTCUSDT --at 2025-02-20T12:00:00", ["has no offset; for UTC write"]),
        ("--symbol BTCUSDT --at soon", ["time 'soon' is not RFC 3339"]),
    ],
)
def test_a_refused_query_says_why_and_what_to_do(
    typed: Typing, served_port: int, arguments: str, told: list[str]
) -> None:
    times = {"at": AT_MS, "late": END_MS + 3_600_000, "early": WARM_MS - DAY_MS}
    line = arguments.format(**{name: iso8601(time) for name, time in times.items()})
    ran = typed(f"llm-trader query {line} --port {served_port}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    for part in told:
        assert part in ran.err


def test_a_misspelt_field_of_a_state_is_pointed_out(
    typed: Typing, served_port: int, corridor: Corridor, tmp_path: Path
) -> None:
    fields = corridor.fields_at(AT_MS, *REQUIRED_STATE)
    fields["rsi7"] = fields.pop("rsi_7")
    path = tmp_path / "state.json"
    path.write_text(json.dumps(fields))
    ran = typed(f"{ASK} {served_port} --state {path}")
    assert ran.code == 2
    assert "--state.rsi_7 is required (did 'rsi7' mean it?)" in ran.err
    assert "unknown: --state.rsi7 (did you mean rsi_7?)" in ran.err


@pytest.mark.soak
def test_a_server_with_tokens_answers_only_those_who_have_one(
    typed: Typing, corridor: Corridor, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--store", str(corridor.store), "--index", str(corridor.index)]
    arguments += ["--auth-tokens-env", "MY_TOKENS"]
    env = {**os.environ, "MY_TOKENS": "first-secret, second-secret"}
    with serving_process(*arguments, env=env) as (process, port):
        without = typed(ASK, port)
        assert without.code == 2
        assert "name that with --auth-tokens-env" in without.err
        monkeypatch.setenv("LLM_TRADER_SERVING__AUTH_TOKENS_ENV", "TOKEN_OF_MINE")
        monkeypatch.setenv("TOKEN_OF_MINE", "third-secret")
        wrong = typed(ASK, port)
        assert wrong.code == 2
        assert "the server does not know this key" in wrong.err
        monkeypatch.setenv("TOKEN_OF_MINE", "second-secret")
        assert "Verdict: " in typed(ASK, port).out
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "secret" not in log


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_serving_the_world_without_tokens_is_refused_with_the_reason(
    typed: Typing, corridor: Corridor, host: str
) -> None:
    line = f"rag-rpc-server --store {corridor.store} --index {corridor.index} --port 0"
    ran = typed(f"{line} --host {host}")
    assert ran.code == 2
    assert f"error: refusing to listen on {host} without authentication" in ran.err
    assert "--allow-unauthenticated-remote" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--store /nowhere/market", "there is no market store at /nowhere/market; correct --store"),
        ("--index /nowhere/index", "there is no index at /nowhere/index; make one with: rag-ing"),
        ("--auth-tokens-env NOT_SET", "names NOT_SET, but that environment variable holds no t"),
        ("--auth-tokens-env my-secret", "should be the name of an environment variable"),
        ("--min-matches 51", "serving.min_matches = 51 should be less than or equal to 50"),
        ("--port 70000", "serving.port = 70000 should be less than or equal to 65535"),
        ("--config /nowhere/my.toml", "no settings file /nowhere/my.toml (named after --config"),
        ("--log-level shout", "logging.level = 'shout' should be 'trace', 'debug'"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    typed: Typing, corridor: Corridor, arguments: str, told: str
) -> None:
    base = f"llm-trader serve --port 0 --store {corridor.store} --index {corridor.index}"
    ran = typed(f"{base} {arguments}")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "my-secret" not in ran.err


def test_a_port_that_is_taken_is_named(typed: Typing, corridor: Corridor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f"rag-rpc-server --store {corridor.store} --index {corridor.index} --port {port}"
        ran = typed(line)
    assert ran.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
    assert "choose another port or stop it" in ran.err


def test_without_a_time_a_query_is_about_the_newest_data_and_says_how_old_it_is(
    typed: Typing, served_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 400 * DAY_MS)
    line = f"llm-trader query --symbol {SYMBOL} --port {served_port}"
    assert typed(line, "--json").json["metadata"]["as_of"] == END_MS
    shown = " ".join(typed(line).out.split())
    assert f"{SYMBOL} at {iso8601(END_MS)}, the newest data, 400 days ago: " in shown
    refused = typed(line, "--at", "now")
    assert refused.code == 2
    assert f"it closed at {iso8601(END_MS)}, 400 days before" in refused.err


def test_a_symbol_may_be_given_as_symbol_or_symbols(typed: Typing, served_port: int) -> None:
    at = f"--at {iso8601(AT_MS)} --port {served_port} --json"
    answers = [typed(f"llm-trader query {flag} btcusdt {at}") for flag in ("--symbol", "--symbols")]
    assert [ran.json["matches"] == answers[0].json["matches"] for ran in answers] == [True, True]
    several = typed(f"llm-trader query --symbols BTCUSDT,ETHUSDT {at}")
    assert "--symbol 'BTCUSDT,ETHUSDT' should name one symbol" in several.err


def test_a_server_takes_lookback_and_calibration_as_flags(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    calibration = tmp_path / "calibration.json"
    line = f"llm-trader calibrate --store {corridor.store} --symbols {SYMBOL} --interval 60"
    made = typed(f"{line} --lookback-days 14 --no-report --out {calibration} --json")
    assert made.code == 0, made.err
    # The data's last days, not days before the present.
    assert made.json["known_by_ms"] > END_MS - 2 * DAY_MS
    arguments = ["--store", str(corridor.store), "--index", str(corridor.index)]
    arguments += ["--lookback-days", "14", "--calibration", str(calibration)]
    with serving_process(*arguments) as (process, port):
        ran = typed(ASK, port, "--json")
        matches = ran.json["matches"]
        assert all(match["timestamp"] >= AT_MS - 14 * DAY_MS for match in matches)
        assert any("calibration" in warning for warning in ran.json["metadata"]["warnings"])
        process.terminate()
        process.communicate(timeout=20)
