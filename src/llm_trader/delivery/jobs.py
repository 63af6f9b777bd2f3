"""What is sent to an intake. Equal ids mean the same snapshot, so a receiver can drop it."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

import msgspec

from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import Millis

METHOD: Final = "snapshot.post"
# Fixed forever: other namespaces would make other ids of the same snapshots.
_SNAPSHOTS: Final = UUID("5d0f8f0e-8c55-5a70-9f43-3f1f3d0e6b52")


class SnapshotPost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of `snapshot.post`.

    `snapshot_id` is of a symbol, a time, an exchange and a version of the features; `job_id` also
    of the intake. Both are the same however often it is sent. `deadline_ms` is the time, UTC
    milliseconds, after which the sender has given up. `late` names the data that was late and
    that the snapshot was made without; it is left out where nothing was.
    """

    job_id: str
    snapshot_id: str
    deadline_ms: Millis
    snapshot: MarketSnapshot
    late: tuple[str, ...] = ()


def snapshot_id(symbol: str, as_of_ms: Millis, exchange: str | None, feature_version: str) -> str:
    name = f"{exchange or 'unknown'}/{symbol}/{as_of_ms}/{feature_version}"
    return str(uuid5(_SNAPSHOTS, name))


def job_id(snapshot: str, intake: str) -> str:
    return str(uuid5(UUID(snapshot), intake))
