"""What only the durable engine has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.retrieval.answer import Answer
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from tests.workflow.graphs import shipped
from tests.workflow.services import Calls, received, start_of


async def test_runs_of_another_version_wait_and_are_counted(
    tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_trader.workflow.engine.durable import run_log
    from llm_trader.workflow.engine.durable.engine import durable_engine

    calls = Calls(answer=answer)
    config = RunsConfig(folder=tmp_path, poll_ms=20)
    database, services = run_database(config, {}), calls.services()
    async with durable_engine(database, config, services) as runs:
        monkeypatch.setattr(run_log, "VERSION", "runs-0")
        other = run_log.RunLog(database, dict(services.scripts))
        old = await other.start(start_of(shipped(), received("OLDUSDT")))
        other.close()
        monkeypatch.undo()
        new = await runs.start(start_of(shipped(), received("NEWUSDT")))
        await runs.wait(new.run_id)
        await runs.completed(new.run_id)
        assert await runs.of_other_versions() == {"runs-0": 1}
        assert (await runs.show(old.run_id)).summary.state == "queued"
        # An ended run is removed by its age, and one that waits is not.
        assert await runs.remove_ended(2**43) == 1
        assert [one.run_id for one in await runs.runs(limit=10)] == [old.run_id]
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        stored = database.execute("SELECT DISTINCT serialization FROM workflow_status").fetchall()
    assert stored == [("portable_json",)]
    assert calls.executed == [new.run_id]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://a@b/c", "should be such as postgresql://user@host"),
        ("postgresql://a@b", "should be such as postgresql://user@host"),
    ],
)
def test_an_address_of_another_database_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        run_database(RunsConfig(postgres_url=url), {})


def test_the_password_comes_from_the_environment_and_is_not_shown() -> None:
    config = RunsConfig(postgres_url="postgresql://me@host:1/db", postgres_password_env="PW")
    database = run_database(config, {"PW": "a/b c"})
    assert database.url == "postgresql://me:a%2Fb%20c@host:1/db"
    assert "a%2Fb" not in repr(database) + database.shown
    with pytest.raises(ConfigurationError, match=r"environment variable PW .* is empty"):
        run_database(config, {})


async def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    from llm_trader.workflow.engine.durable.engine import durable_engine

    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 100)
    config = RunsConfig(folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"runs\.sqlite is no database of runs"):
        async with durable_engine(run_database(config, {}), config, Calls().services()):
            pass
