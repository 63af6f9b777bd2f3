from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import ConfigurationError
from llm_trader.retrieval.config import RetrievalConfig
from llm_trader.serving.config import ServingConfig
from llm_trader.settings.loading import load_settings
from llm_trader.settings.tree import (
    SETTINGS,
    Settings,
    env_name,
)


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "given.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(
    config: Path | None = None,
    environ: dict[str, str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(config, environ=environ or {}, overrides=overrides)
    problems: list[str] = refused.value.details["problems"]
    assert all(problem in refused.value.message for problem in problems)
    return problems


def test_without_any_source_every_setting_has_its_default():
    settings = load_settings(environ={})
    assert settings == Settings()
    assert (settings.serving.port, settings.retrieval.min_similarity) == (7879, 0.7)
    assert settings.market.store == Path("var/market")


def test_flags_go_before_environment_before_file_before_defaults():
    path = written("[serving]\nport = 1\nmin_matches = 1\nmax_connections = 1\n")
    environ = {"LLM_TRADER_SERVING__PORT": "2", "LLM_TRADER_SERVING__MIN_MATCHES": "2"}
    serving = load_settings(path, environ=environ, overrides={"serving.port": 3}).serving
    assert serving == ServingConfig(port=3, min_matches=2, max_connections=1)


def test_a_flag_that_is_none_was_not_given():
    environ = {"LLM_TRADER_SERVING__PORT": "2"}
    settings = load_settings(environ=environ, overrides={"serving.port": None, "no.such": None})
    assert settings.serving.port == 2


def test_an_empty_environment_variable_was_not_given():
    assert load_settings(environ={"LLM_TRADER_SERVING__PORT": ""}) == Settings()


def test_the_environment_is_the_argument_and_not_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LLM_TRADER_SERVING__PORT", "2")
    assert load_settings(environ={}).serving.port == 7879
    assert Settings().serving.port == 7879


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_can_be_given_by_its_environment_variable(key: str):
    field = SETTINGS[key]
    value = field.examples[0] if field.examples else field.default
    text = json.dumps(value) if isinstance(value, list) else str(value)
    settings = load_settings(environ={env_name(key): text})
    held = functools.reduce(getattr, key.split("."), settings)
    assert str(list(held) if isinstance(value, list) else held) == str(value)


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_says_what_it_means(key: str):
    assert (SETTINGS[key].description or "").endswith(".")


def test_the_file_is_the_one_asked_for_else_the_one_of_the_environment_else_the_local_one():
    written("[serving]\nport = 1\n", "llm-trader.toml")
    written("[serving]\nport = 2\n", "other.toml")
    asked = written("[serving]\nport = 3\n", "asked.toml")
    by_name = {"LLM_TRADER_CONFIG": "other.toml"}
    assert load_settings(environ={}).serving.port == 1
    assert load_settings(environ=by_name).serving.port == 2
    assert load_settings(asked, environ=by_name).serving.port == 3


def test_a_file_that_was_asked_for_must_exist():
    assert problems_of(Path("no.toml")) == ["no settings file no.toml (named after --config)"]
    assert problems_of(environ={"LLM_TRADER_CONFIG": "no.toml"}) == [
        "no settings file no.toml (named in LLM_TRADER_CONFIG)"
    ]


def test_a_file_that_is_not_toml_is_named_with_the_place():
    (problem,) = problems_of(written("[serving]\nport = = 1\n"))
    assert problem.startswith("given.toml is not TOML: ")
    assert "line 2" in problem


def test_a_file_that_is_not_text_is_named():
    Path("given.toml").write_bytes(b"host = '\xff'")
    assert problems_of(Path("given.toml"))[0].startswith("given.toml is not TOML: ")


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("[serving]\nprot = 1", "serving.prot; did you mean serving.port?"),
        ("port = 1", "port; did you mean serving.port?"),
        ("[servng]\nport = 1", "servng; did you mean serving?"),
        ("[serving]\ntop_k = 1", "serving.top_k; did you mean retrieval.top_k?"),
        ("[serving]\nzzz = 1", "serving.zzz"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(unknown: str, meant: str):
    assert problems_of(written(unknown)) == [f"unknown setting {meant} (from given.toml)"]


def test_an_unknown_flag_is_refused_with_the_one_that_was_meant():
    assert problems_of(overrides={"serving.prot": 1}) == [
        "unknown setting serving.prot; did you mean serving.port? (from the command line)"
    ]


def test_an_unknown_environment_variable_of_ours_is_refused_and_others_are_not_ours():
    environ = {
        "LLM_TRADER_CONFG": "x.toml",
        "LLM_TRADER_SERVING": "{}",
        "LLM_TRADER_SERVING_PORT": "1",
        "LLM_TRADER_SERVING__PROT": "1",
        "LLM_TRADERS": "1",
        "PORT": "1",
    }
    assert problems_of(environ=environ) == [
        "unknown setting LLM_TRADER_CONFG; did you mean LLM_TRADER_CONFIG? (from the environment)",
        "unknown setting LLM_TRADER_SERVING; did you mean LLM_TRADER_SERVING__MCP? "
        "(from the environment)",
        "unknown setting LLM_TRADER_SERVING_PORT; did you mean LLM_TRADER_SERVING__PORT? "
        "(from the environment)",
        "unknown setting LLM_TRADER_SERVING__PROT; did you mean LLM_TRADER_SERVING__PORT? "
        "(from the environment)",
    ]


def test_the_variables_for_test_data_and_for_tokens_are_no_settings_but_are_known():
    environ = {
        "LLM_TRADER_TEST_DATA": "/data",
        "LLM_TRADER_SERVING__AUTH_TOKENS_ENV": "LLM_TRADER_TOKENS",
        "LLM_TRADER_TOKENS": "s3cret",
    }
    settings = load_settings(environ=environ)
    assert settings.serving.auth_tokens_env == "LLM_TRADER_TOKENS"
    assert "s3cret" not in repr(settings)


def test_all_problems_are_reported_at_once_each_with_its_origin():
    path = written("[serving]\nport = 70000\n[retrieval]\ntop_k = 0\n")
    environ = {"LLM_TRADER_SERVING__MIN_MATCHES": "many", "LLM_TRADER_NONSENSE": "1"}
    problems = problems_of(path, environ, {"retrieval.top_k": 51, "logging.level": "loud"})
    assert sorted(problems) == [
        "logging.level = 'loud' should be 'trace', 'debug', 'info', 'warn' or 'error' "
        "(from the command line)",
        "retrieval.top_k = 51 should be less than or equal to 50 (from the command line)",
        "serving.min_matches = 'many' should be a valid integer, unable to parse string as an "
        "integer (from LLM_TRADER_SERVING__MIN_MATCHES)",
        "serving.port = 70000 should be less than or equal to 65535 (from given.toml)",
        "unknown setting LLM_TRADER_NONSENSE (from the environment)",
    ]


def test_a_missing_file_does_not_hide_the_other_problems():
    assert len(problems_of(Path("no.toml"), {"LLM_TRADER_SERVING__PORT": "x"})) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("serving = 5", "serving is a section, not a value"),
        ("retrieval.top_k = true", "retrieval.top_k = True should be a number"),
        ("retrieval.min_similarity = nan", "retrieval.min_similarity = nan should be a finite num"),
        ("serving.request_deadline_s = inf", "serving.request_deadline_s = inf should be a finite"),
        ("snapshot.interval_minutes = 7", "snapshot.interval_minutes = 7 should divide a day"),
        ("snapshot.interval_minutes = 0", "snapshot.interval_minutes = 0 should be greater"),
        ("workflow.guards.max_leverage = 0", "workflow.guards.max_leverage = 0 should be greater"),
        ("workflow.execution.stop_pct = 100", "workflow.execution.stop_pct = 100 should be less"),
        ("index.path = ''", "index.path = '' should name a folder"),
        ("market.store = '~nobody-here/x'", "market.store = '~nobody-here/x' should start with"),
        ("retrieval.vector = 'words'", "retrieval.vector = 'words' should be 'state', 'text'"),
        ("index.qdrant.url = 'localhost'", "index.qdrant.url = 'localhost' should match"),
        ("index.qdrant.collection = 'a b'", "index.qdrant.collection = 'a b' should match"),
        ("cache.redis_url = 'redis://:hunter2@host'", "cache.redis_url should hold no password"),
        ("cache.redis_url = 'redis://h?password=hunter2'", "cache.redis_url should hold no passw"),
        ("cache.redis_url = 'redis://:hunt[er2@host'", "cache.redis_url should be a URL"),
        ("cache.redis_url = 'redis:hunter2@host'", "cache.redis_url should match pattern"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(text: str, problem: str):
    (found,) = problems_of(written(text))
    assert found.startswith(problem)


def test_a_token_given_where_the_name_of_its_variable_belongs_is_not_repeated():
    (problem,) = problems_of(written("[serving]\nauth_tokens_env = 's3cret-token'\n"))
    assert problem == (
        "serving.auth_tokens_env should be the name of an environment variable, in capitals "
        "(from given.toml)"
    )


def test_the_value_of_an_unknown_key_is_not_repeated_as_it_may_be_a_secret():
    (problem,) = problems_of(written("[serving]\nauth_token = 's3cret'\n"))
    assert "s3cret" not in problem
    assert "did you mean serving.auth_tokens_env?" in problem


def test_a_folder_under_home_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/quant")
    path = written("market.store = '~/market'")
    assert load_settings(path, environ={}).market.store == Path("/home/quant/market")


def test_settings_cannot_be_changed():
    settings = Settings()
    with pytest.raises(AttributeError, match="immutable"):
        settings.serving = ServingConfig()  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        settings.serving.port = 1  # type: ignore[misc]


def test_equal_settings_have_equal_digests_wherever_their_values_came_from():
    path = written("[serving]\nport = 7900\nidle_timeout_s = 600\n")
    from_file = load_settings(path, environ={})
    from_environment = load_settings(environ={"LLM_TRADER_SERVING__PORT": "7900"})
    assert from_file.digest() == from_environment.digest() != Settings().digest()


def test_the_digest_of_given_values_stays_the_same_from_process_to_process():
    assert len(Settings().digest()) == 12
    assert Settings().digest() == Settings(serving=ServingConfig(port=7879)).digest()


@given(top_k=st.integers(1, 50), min_similarity=st.floats(0, 1), filters=st.booleans())
def test_what_is_given_as_text_is_what_is_read(top_k: int, min_similarity: float, filters: bool):
    environ = {
        "LLM_TRADER_RETRIEVAL__TOP_K": str(top_k),
        "LLM_TRADER_RETRIEVAL__MIN_SIMILARITY": repr(min_similarity),
        "LLM_TRADER_RETRIEVAL__INCLUDE_REGIME_FILTERS": str(filters).lower(),
    }
    assert load_settings(environ=environ).retrieval == RetrievalConfig(
        top_k=top_k, min_similarity=min_similarity, include_regime_filters=filters
    )


def test_a_rejected_value_that_is_long_enough_for_a_key_is_not_repeated() -> None:
    environ = {
        "LLM_TRADER_SERVING__PORT": "sk-live-0123456789abcdef",
        "LLM_TRADER_RETRIEVAL__VECTOR": "statte",
    }
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(environ=environ)
    assert "sk-live" not in refusal.value.message
    assert "serving.port should be" in refusal.value.message
    assert "retrieval.vector = 'statte'" in refusal.value.message
