from __future__ import annotations

import io
import json
import logging
import re
import warnings
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.logs import MASK, configure_logging, mask_secrets

pytestmark = pytest.mark.usefixtures("restored_logging")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def masked(**event: Any) -> dict[str, Any]:
    return dict(mask_secrets(None, "info", event))


def test_an_event_is_one_json_line_with_time_level_logger_and_its_values():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("llm_trader.serving").info("query answered", symbol="BTCUSDT", matches=5)
    (line,) = lines_of(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "logger": "llm_trader.serving",
        "event": "query answered",
        "symbol": "BTCUSDT",
        "matches": 5,
    }


def test_the_markets_timestamp_is_not_overwritten_by_the_time_of_the_line():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("llm_trader.x").info("snapshot", timestamp=1_774_008_000_000)
    assert lines_of(stream)[0]["timestamp"] == 1_774_008_000_000


def test_the_standard_librarys_lines_look_like_ours_and_are_masked_too():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        logging.getLogger("some.library").info("hello %s", "you", extra={"api_key": "k-123"})
    (line,) = lines_of(stream)
    del line["ts"]
    assert line == {
        "level": "info",
        "logger": "some.library",
        "event": "hello you",
        "request_id": "r1",
        "api_key": MASK,
    }


def test_a_warning_becomes_a_log_line():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        configure_logging("info", "json", stream)
        warnings.warn("this will go away", stacklevel=1)
    assert "this will go away" in lines_of(stream)[0]["event"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_an_exception_is_logged_with_its_traceback_and_without_local_variables(format: str):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    local_secret = "s3cret-" + "value"
    try:
        raise ValueError(f"broken, {len(local_secret)} characters")
    except ValueError:
        structlog.get_logger("llm_trader.x").exception("failed")
    assert "ValueError: broken, 12 characters" in stream.getvalue()
    assert "s3cret-value" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("trace", {"debug", "info", "warning", "error"}, {"debug", "info", "warning", "error"}),
        ("debug", {"debug", "info", "warning", "error"}, {"info", "warning", "error"}),
        ("info", {"info", "warning", "error"}, {"info", "warning", "error"}),
        ("warn", {"warning", "error"}, {"warning", "error"}),
        ("error", {"error"}, {"error"}),
    ],
)
def test_a_level_hides_what_is_less_severe_and_only_trace_shows_debug_lines_of_libraries(
    level: Any, ours: set[str], theirs: set[str]
):
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    for severity in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("llm_trader.x"), severity)("ours")
        getattr(logging.getLogger("library"), severity)("theirs")
    seen = lines_of(stream)
    assert {line["level"] for line in seen if line["event"] == "ours"} == ours
    assert {line["level"] for line in seen if line["event"] == "theirs"} == theirs


def test_configuring_again_replaces_level_format_and_stream_also_for_loggers_in_use():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("error", "json", first)
    log = structlog.get_logger("llm_trader.x")
    log.info("hidden")
    configure_logging("info", "console", second)
    log.info("shown")
    assert first.getvalue() == ""
    assert "shown" in second.getvalue()
    assert not second.getvalue().startswith("{")


def test_auto_is_json_in_a_pipe_and_console_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        configure_logging("info", "auto", stream)
        structlog.get_logger("llm_trader.x").info("started", port=7879)
    assert lines_of(pipe)[0]["port"] == 7879
    assert "\x1b[" in terminal.getvalue()


def test_no_color_is_respected_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    configure_logging("info", "auto", terminal)
    structlog.get_logger("llm_trader.x").info("started", port=7879)
    assert "port=7879" in terminal.getvalue()
    assert "\x1b[" not in terminal.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_text_from_outside_can_neither_forge_a_line_nor_move_the_cursor(format: str):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    structlog.get_logger("llm_trader.x").info("bad\nevent", symbol="BTC\nUSDT\x1b[2J")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_huge_name_from_outside_is_cut_and_its_length_said(format: str):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    name = "x" * 100_000
    structlog.get_logger("llm_trader.x").warning(name, file=name, rows=[{"name": name}])
    assert len(stream.getvalue()) < 13_000
    assert stream.getvalue().count("(100000 characters)") == 3


def test_a_name_of_usual_length_is_logged_whole():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    name = "x" * 4000
    structlog.get_logger("llm_trader.x").info("read", file=name)
    assert lines_of(stream)[0]["file"] == name


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_is_not_cut(format: str):
    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1) if depth % 2 else fail_too(depth - 1)
        raise ValueError("the innermost")

    def fail_too(depth: int) -> None:
        fail(depth)

    stream = io.StringIO()
    configure_logging("info", format, stream)
    try:
        fail(60)
    except ValueError:
        structlog.get_logger("llm_trader.x").exception("failed")
    assert len(stream.getvalue()) > 5000
    assert "the innermost" in stream.getvalue()
    assert " characters)" not in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("code", ["\x1b[2J", "\x9b31m", "\r", "\x07", "\u202e"])
def test_control_characters_reach_no_value_at_any_depth(format: str, code: str):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    text = f"BTC{code}USDT"
    structlog.get_logger("llm_trader.x").info(text, symbol=text, rows=[{"name": text}])
    assert code not in stream.getvalue()
    assert stream.getvalue().count("BTC") == 3


def test_the_standard_librarys_lines_are_cut_and_escaped_too():
    stream = io.StringIO()
    configure_logging("info", "console", stream)
    logging.getLogger("asyncio").warning("peer %s", "\x1b[2J" + "x" * 100_000)
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < 5000


@pytest.mark.parametrize(
    "key",
    ["token", "auth_tokens", "api_key", "X-API-Key", "apiKey", "password", "Authorization"],
)
def test_the_value_of_a_key_that_looks_like_a_secrets_is_masked(key: str):
    assert masked(**{key: "s3cret"}) == {key: MASK}
    assert masked(**{key: ["s3cret"]}) == {key: MASK}


def test_secrets_are_masked_at_any_depth():
    event = {"request": {"headers": [{"Authorization": "Bearer s3cret"}], "path": "/"}}
    assert masked(**event) == {"request": {"headers": [{"Authorization": MASK}], "path": "/"}}


def test_counts_names_and_absent_secrets_are_not_masked():
    event = {
        "prompt_tokens": 512,
        "auth_tokens_env": "LLM_TRADER_TOKENS",
        "token": None,
        "tokenizer": "bpe",
    }
    assert masked(**event) == event


def test_masking_leaves_the_callers_own_data_as_it_was():
    headers = {"authorization": "Bearer s3cret"}
    masked(headers=headers)
    assert headers == {"authorization": "Bearer s3cret"}


def test_not_a_number_is_null_and_numpy_numbers_are_numbers():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("llm_trader.x").info(
        "values", a=float("nan"), b=np.float32(1.5), c=[np.int64(3), np.inf], d={1: True}
    )
    line = lines_of(stream)[0]
    assert [line[key] for key in "abcd"] == [None, 1.5, [3, None], {"1": True}]


@given(
    values=st.dictionaries(
        st.sampled_from(["a", "b", "timestamp"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_whatever_the_values_each_event_is_one_line_of_strict_json(values: dict[str, Any]):
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger("llm_trader.x").info("any", **values)
    (line,) = stream.getvalue().splitlines()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
