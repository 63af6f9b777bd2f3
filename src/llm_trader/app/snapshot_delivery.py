"""The sender of snapshots that the settings describe."""

from __future__ import annotations

from collections.abc import Mapping

from llm_trader.app.indexes import secret, snapshot_rules
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.clock import Clock
from llm_trader.delivery.config import parse_intake
from llm_trader.delivery.intake import Intake
from llm_trader.delivery.sender import SnapshotSender
from llm_trader.embedding.state import StateSpace
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource


def snapshot_sender(
    settings: Settings,
    environ: Mapping[str, str],
    store: MarketStore,
    symbols: list[str],
    clock: Clock,
) -> SnapshotSender:
    """Sends states of the store to the intakes of the settings; call it within an event loop.

    Raises `ConfigurationError` where the variable of a token is empty.
    """
    config = settings.delivery
    intraday = intraday_timeframe(settings, store, symbols)
    addresses = [parse_intake(text) for text in config.intakes]
    intakes = [
        Intake(
            address,
            clock,
            config.attempt_timeout_s,
            secret(environ, address.token_env, "delivery.intakes"),
        )
        for address in addresses
    ]
    source = SnapshotSource(
        store, intraday, settings.snapshot.interval_ms, snapshot_rules(settings)
    )
    version = StateSpace(intraday).feature_version
    return SnapshotSender(source, intakes, config, clock, version)
