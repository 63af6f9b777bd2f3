"""`llm-trader index`: what it tells of an index, and what it deletes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Typed, Typing
from tests.cli.corridor import SYMBOLS, Corridor, copied


def test_the_commands_tell_and_prune(typed: Typing, corridor: Corridor, tmp_path: Path) -> None:
    index = copied(corridor.index, tmp_path / "index")
    copied(corridor.index, tmp_path / "index.old-1")

    def run(arguments: str) -> Typed:
        return typed(f"llm-trader index {arguments} --index", index)

    told = run("info")
    assert told.code == 0, told.err
    for text in (*SYMBOLS, "version index: live", "version index.old-1: old", "v2_5m4h"):
        assert text in told.out
    described = run("info --json").json
    assert [of["symbol"] for of in described["info"]["symbols"]] == list(SYMBOLS)
    assert run("prune --yes").out == "deleted index.old-1\n"
    assert run("prune --yes").out == "nothing to delete\n"
    assert index.is_dir()
    refused = run("migrate --from embedded --to embedded")
    assert refused.code == 2
    assert "cannot be migrated from embedded to embedded" in refused.err
    nowhere = run("migrate --from embedded --to qdrant")
    assert nowhere.code == 2
    assert "give --qdrant-url" in nowhere.err
