"""What each setting needs before it holds in a running server."""

from __future__ import annotations

import msgspec

from llm_trader.serving.config import ServingConfig
from llm_trader.settings.reload import RELOAD, changes, with_settings_of
from llm_trader.settings.tree import SETTINGS, Settings


def test_every_setting_has_its_place_in_the_table_and_nothing_else_has() -> None:
    assert set(RELOAD) == set(SETTINGS)


def _changed() -> Settings:
    serving = ServingConfig(rate_limit_per_s=5.0, metrics=False, port=1000)
    return Settings(serving=serving)


def test_changes_are_told_apart_by_what_they_need() -> None:
    found = changes(Settings(), _changed())
    assert [d.key for d in found.live] == ["serving.rate_limit_per_s"]
    assert [d.key for d in found.restart] == ["serving.metrics"]
    assert [d.key for d in found.parent] == ["serving.port"]
    assert [(d.first, d.second) for d in found.live] == [(0.0, 5.0)]


def test_what_needs_a_restart_stays_as_it_is_and_is_still_a_change_the_next_time() -> None:
    effective = with_settings_of(Settings(), _changed(), ["live"])
    assert effective.serving == msgspec.structs.replace(Settings().serving, rate_limit_per_s=5.0)
    again = changes(effective, _changed())
    assert (again.live, len(again.restart), len(again.parent)) == ([], 1, 1)
