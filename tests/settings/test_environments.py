"""The settings of each environment in `config/`."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.admission import check_binding
from llm_trader.settings.loading import load_settings
from llm_trader.settings.values import check_settings

FOLDER = Path(__file__).parents[2] / "config"
ENVIRONMENTS = ("dev", "staging", "prod")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_can_be_used(name: str) -> None:
    (checked,) = check_settings([FOLDER / f"{name}.toml"], {}, date(2026, 11, 29))
    assert checked.differ_from_default > 0
    # Machines of other environments have the files that these name.
    assert all("does not exist here" in missing for missing in checked.missing)
    assert len(checked.missing) == (0 if name == "dev" else 3)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_value_that_differs_has_a_comment_that_says_why(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    for section in text.split("\n[")[1:]:
        if section.startswith(("market]", "index]")):  # paths, which the first lines explain
            continue
        lines = section.splitlines()[1:]
        assert lines[0].startswith("#"), section


def test_production_and_staging_ask_for_keys_over_tls_and_log_for_machines() -> None:
    for name in ("staging", "prod"):
        settings = load_settings(FOLDER / f"{name}.toml", environ={})
        serving = settings.serving
        check_binding(serving.host, serving.keys_file is not None, False, encrypted=True)
        assert serving.tls_certificate is not None
        assert serving.workers > 1
        assert (serving.http, serving.metrics) == (True, True)
        assert serving.rate_limit_per_s > 0
        assert settings.logging.format == "json"
        assert settings.audit.folder is not None


def test_development_is_open_to_this_machine_alone() -> None:
    serving = load_settings(FOLDER / "dev.toml", environ={}).serving
    assert serving.keys_file is None
    check_binding(serving.host, False, False)
    with pytest.raises(ConfigurationError):
        check_binding("0.0.0.0", False, False)


def test_staging_has_no_setting_that_production_lacks() -> None:
    files = {n: tomllib.loads((FOLDER / f"{n}.toml").read_text()) for n in ("staging", "prod")}
    for section, values in files["staging"].items():
        assert set(values) <= set(files["prod"][section])
