from __future__ import annotations

import msgspec

from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.rpc.params import ParamsDecoder
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.intake import PostParams

SNAPSHOT = MarketSnapshot(symbol="BTCUSDT", timestamp=1_700_006_400_000, price=100.0)
POST = SnapshotPost(job_id="job", snapshot_id="state", deadline_ms=1, snapshot=SNAPSHOT)


def test_whatever_a_collector_sends_is_taken_and_unknown_fields_are_named() -> None:
    decoder, unknown = ParamsDecoder(PostParams), list[str]()
    whole = decoder.decode(msgspec.json.encode(POST), unknown)
    assert (msgspec.to_builtins(whole), unknown) == (msgspec.to_builtins(POST), [])
    sent = msgspec.to_builtins(POST)
    sent["snapshot"]["moon_phase"] = 0.5
    sent["sender"] = "another collector"
    assert decoder.decode(msgspec.json.encode(sent), unknown) == whole
    assert unknown == ["sender", "snapshot.moon_phase"]


def test_parameters_by_position_have_the_order_of_the_page() -> None:
    values = msgspec.json.encode(["job", "state", 1, SNAPSHOT, ["oi"]])
    post = ParamsDecoder(PostParams).decode(values, [])
    assert (post.job_id, post.snapshot_id, post.deadline_ms, post.late) == (
        *("job", "state", 1, ("oi",)),
    )
