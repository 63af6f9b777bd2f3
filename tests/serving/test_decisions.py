"""`rag.list_decisions` and `rag.get_decision`, also while decisions are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.llm.record.record import DecisionRecord
from llm_trader.rpc.client import RpcError
from llm_trader.serving.decisions import DecisionResult, DecisionsResult
from tests.cli.corridor import Corridor, answering
from tests.llm.record.decisions import SHORT, recorded


async def test_decisions_appear_as_they_are_recorded(corridor: Corridor, tmp_path: Path) -> None:
    async with answering(corridor, decisions__record=tmp_path / "record") as rag:
        nothing = await rag.call("rag.list_decisions", None, DecisionsResult)
        assert (nothing.recorded, nothing.decisions) == (False, [])
        with pytest.raises(RpcError, match="no decisions are recorded in"):
            await rag.call("rag.get_decision", {"id": 1})
        with DecisionRecord.open(tmp_path / "record") as record:
            for number in range(3):
                record.decisions.add(recorded(key=str(number)))
            newest = record.decisions.add(recorded(SHORT, symbol="ETHUSDT"))
            listed = await rag.call("rag.list_decisions", {"limit": 2}, DecisionsResult)
            assert (listed.recorded, listed.total) == (True, 4)
            assert [summary.id for summary in listed.decisions] == [4, 3]
            one = {"symbol": "ETHUSDT"}
            of_symbol = await rag.call("rag.list_decisions", one, DecisionsResult)
            assert (of_symbol.total, of_symbol.decisions[0].decision) == (1, SHORT)
            whole = await rag.call("rag.get_decision", {"id": newest.id}, DecisionResult)
            assert whole.decision["decision"]["reasoning"] == "It fell."
            with pytest.raises(RpcError, match="there is no decision 99"):
                await rag.call("rag.get_decision", {"id": 99})
