"""`llm-trader config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llm_trader.cli import config
from llm_trader.errors import ConfigurationError


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(config.app, arguments, env=environment)


def printed(*arguments: str, **environment: str) -> Any:
    result = typed(*arguments, "--json", **environment)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_each_value_is_shown_with_its_source(working_folder: Path) -> None:
    Path("mine.toml").write_text("[serving]\nport = 8000\nmin_matches = 3\n")
    shown = printed("show", "--config", "mine.toml", LLM_TRADER_MARKET__KEEP_DAYS="90")
    rows = {row["key"]: (row["value"], row["origin"]) for row in shown["settings"]}
    assert rows["serving.port"] == (8000, "mine.toml")
    assert rows["serving.min_matches"] == (3, "mine.toml")
    assert rows["market.keep_days"] == (90, "LLM_TRADER_MARKET__KEEP_DAYS")
    assert rows["market.store"] == ("var/market", None)


def test_only_changed_settings_are_shown_on_request() -> None:
    Path("mine.toml").write_text("[serving]\nport = 8000\nmin_matches = 3\n")
    shown = printed("show", "--config", "mine.toml", "--changed")
    assert [row["key"] for row in shown["settings"]] == ["serving.port"]


def test_the_mistakes_of_all_files_show_at_once() -> None:
    Path("one.toml").write_text("[serving]\nport = 'x'\n")
    Path("two.toml").write_text("[serving]\nprot = 1\n")
    refused = typed("check", "one.toml", "two.toml").exception
    assert isinstance(refused, ConfigurationError)
    assert "serving.port = 'x'" in refused.message
    assert "did you mean serving.port?" in refused.message


def test_a_setting_that_the_language_model_does_not_take_fails_the_check() -> None:
    Path("one.toml").write_text("[llm]\ntemperature = 0.1\n")
    Path("two.toml").write_text('[llm]\nmodel = "claude-3-5-sonnet-20241022"\n')
    refused = typed("check", "one.toml", "two.toml").exception
    assert isinstance(refused, ConfigurationError)
    first, second = refused.message.splitlines()
    assert first.startswith("one.toml: llm.temperature: claude-haiku-5-5 has no temperature")
    assert second.startswith("two.toml: llm.model: anthropic retired")


def test_what_this_machine_lacks_fails_the_check() -> None:
    Path("mine.toml").write_text(
        '[serving]\nauth_tokens_env = "TOKENS"\n[retrieval]\ncalibration = "none.json"\n'
    )
    result = typed("check", "mine.toml", "--json")
    assert result.exit_code == 1
    (checked,) = json.loads(result.stdout)
    assert checked["file"] == "mine.toml"
    variable, file = checked["missing"]
    assert "TOKENS, which is not set" in variable
    assert "none.json, which does not exist" in file
    Path("none.json").touch()
    assert typed("check", "mine.toml", TOKENS="a").exit_code == 0


def test_two_files_are_compared_without_the_environment() -> None:
    Path("one.toml").write_text("[serving]\nport = 1\n[index]\npath = 'a'\n")
    Path("two.toml").write_text("[serving]\nport = 2\n[index]\npath = 'a'\n")
    environ = {"LLM_TRADER_SERVING__PORT": "3"}
    assert printed("diff", "one.toml", "two.toml", **environ) == [
        {"key": "serving.port", "first": 1, "second": 2}
    ]
    assert printed("diff", "one.toml", **environ) == [
        {"key": "index.path", "first": "a", "second": "var/index"},
        {"key": "serving.port", "first": 1, "second": 3},
    ]


def test_a_wide_value_is_shown_whole_in_a_narrow_terminal() -> None:
    Path("mine.toml").write_text(f"[market]\nstore = '{'folder/' * 20}end'\n")
    result = typed("show", "--config", "mine.toml", "--changed", COLUMNS="60")
    assert "folder/" * 20 + "end" in result.output.replace("\n", "").replace(" ", "")
