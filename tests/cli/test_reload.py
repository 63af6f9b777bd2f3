"""`llm-trader config reload` tells a running server to read its settings again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Typing
from tests.cli.corridor import Corridor, serving_process


def test_a_server_whose_settings_are_as_before_says_so(typed: Typing, served_port: int) -> None:
    ran = typed(f"llm-trader config reload --port {served_port}")
    assert (ran.code, ran.out.strip()) == (0, "no setting has changed")


def test_what_is_applied_and_what_is_left_is_shown_and_a_mistake_names_all(
    typed: Typing, corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the command itself must not read the server's file
    toml = tmp_path / "server.toml"
    toml.write_text("")
    flags = ("--store", str(corridor.store), "--index", str(corridor.index), "--no-http")
    with serving_process(*flags, "--config", str(toml)) as (_, port):
        command = f"llm-trader config reload --port {port}"
        toml.write_text("[retrieval]\ntop_k = 9\n[serving]\nmetrics = false\n")
        ran = typed(command)
        assert ran.code == 0
        assert "applied: retrieval.top_k = 9, before 5" in ran.out
        assert "needs a restart of the server: serving.metrics = false, before true" in ran.out
        shown = typed(command, "--json").json
        assert [change["key"] for change in shown["needs_restart"]] == ["serving.metrics"]
        toml.write_text("[retrieval]\ntop_k = 99\nlookback = 1\n")
        ran = typed(command)
        assert ran.code == 2
        assert "retrieval.top_k = 99 should be less than or equal to 50" in ran.err
        assert "unknown setting retrieval.lookback" in ran.err
        assert "those from before stay in use" in ran.err
