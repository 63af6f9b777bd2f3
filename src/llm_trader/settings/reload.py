"""What a changed setting needs before it holds in a running server. No I/O here.

`live`      a reload suffices
`restart`   the server starts again; with workers they are replaced one after the other
`parent`    the server starts again, also with workers, because their parent holds the ports
`unread`    servers do not read it; it is for other commands, and each reads it when it starts
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from llm_trader.settings.tree import SETTINGS, Settings
from llm_trader.settings.values import SettingDifference, differences

Reload = Literal["live", "restart", "parent", "unread"]

_KEYS: Final[dict[Reload, tuple[str, ...]]] = {
    "live": (
        "retrieval.lookback_days",
        "retrieval.include_regime_filters",
        "retrieval.evidence_k",
        "retrieval.min_gap_hours",
        "retrieval.top_k",
        "retrieval.min_similarity",
        "retrieval.calibration",
        "retrieval.max_calibration_age_days",
        "serving.max_frame_kib",
        "serving.max_received_mib",
        "serving.frame_timeout_s",
        "serving.idle_timeout_s",
        "serving.write_timeout_s",
        "serving.max_unsent_mib",
        "serving.max_batch_reply_kib",
        "serving.max_connections",
        "serving.max_connections_per_address",
        "serving.max_unauthenticated_connections",
        "serving.authentication_timeout_s",
        "serving.max_in_flight",
        "serving.max_in_flight_per_connection",
        "serving.request_deadline_s",
        "serving.rate_limit_per_s",
        "serving.rate_burst",
        "serving.work_limit_ms_per_s",
        "serving.work_burst_ms",
        "serving.drain_timeout_s",
        "serving.worker_timeout_s",
        "serving.min_matches",
        "serving.max_data_age_minutes",
        "serving.max_unchanged_minutes",
        "serving.max_subscriptions",
        "serving.max_subscriptions_per_connection",
        "logging.level",
        "logging.format",
    ),
    # Files and connections that are opened once, and what the index was made with.
    "restart": (
        "market.store",
        "market.map_size_mib",
        "snapshot.intraday",
        "snapshot.interval_minutes",
        "snapshot.max_hole_candles",
        "volatility.model",
        "embedding.text.enabled",
        "embedding.text.model",
        "embedding.text.model_path",
        "embedding.text.cache_dir",
        "embedding.text.form",
        "embedding.text.threads",
        "embedding.text.batch_size",
        "embedding.text.cache_size",
        "cache.redis_url",
        "cache.redis_password_env",
        "cache.redis_timeout_ms",
        "cache.ttl_hours",
        "index.path",
        "index.map_size_mib",
        "index.qdrant.url",
        "index.qdrant.grpc_port",
        "index.qdrant.collection",
        "index.qdrant.api_key_env",
        "index.qdrant.ca_file",
        "index.qdrant.timeout_s",
        "index.qdrant.retry_s",
        "index.qdrant.pool_size",
        "index.qdrant.shard_number",
        "index.qdrant.replication_factor",
        "index.qdrant.approximate",
        "index.qdrant.hnsw_ef",
        "index.qdrant.quantization",
        "index.qdrant.node_urls",
        "retrieval.vector",
        "serving.http_allowed_hosts",
        "serving.http_allowed_origins",
        "serving.allow_unauthenticated_remote",
        "serving.keys_file",
        "serving.auth_tokens_env",
        "serving.tls_certificate",
        "serving.tls_key",
        "serving.tls_client_ca",
        "serving.limits_redis_url",
        "serving.limits_redis_password_env",
        "serving.limits_redis_timeout_ms",
        "serving.page",
        "serving.reports",
        "serving.metrics",
        "serving.mcp",
        "serving.graphql",
        "serving.graphql_introspection",
        "serving.graphql_max_depth",
        "serving.graphql_max_aliases",
        "serving.graphql_max_tokens",
        "serving.otlp_endpoint",
        "audit.folder",
        "audit.max_file_mib",
        "audit.keep_files",
        "forecasts.journal",
        "forecasts.folder",
        "forecasts.max_file_mib",
        "forecasts.keep_files",
    ),
    "parent": (
        "serving.host",
        "serving.port",
        "serving.http",
        "serving.http_port",
        "serving.workers",
    ),
    "unread": (
        "market.keep_days",
        "market.exchange.binance_url",
        "market.exchange.bybit_url",
        "market.exchange.binance_ws_url",
        "market.exchange.bybit_ws_url",
        "market.exchange.silence_s",
        "market.exchange.streams_per_connection",
        "market.exchange.timeout_s",
        "market.exchange.max_attempts",
        "market.exchange.max_wait_s",
        "market.exchange.close_margin_s",
        "market.archive.url",
        "market.archive.parallel",
        "market.archive.timeout_seconds",
        "ingest.batch_days",
        "delivery.intakes",
        "delivery.max_wait_s",
        "delivery.deadline_s",
        "delivery.attempt_timeout_s",
        "decisions.record",
        "decisions.keep_days",
        "decisions.arm",
        "decisions.baseline_if_retrieval_fails",
        "decisions.longest_hold_hours",
        "decisions.round_trip_cost_pct",
        "decisions.expiry.max_age_s",
        "decisions.expiry.max_price_move_pct",
        "workflow.broker",
        "workflow.guards.max_data_age_s",
        "workflow.guards.least_verdict",
        "workflow.guards.max_novelty",
        "workflow.guards.min_reward_risk",
        "workflow.guards.max_expected_moves",
        "workflow.guards.max_position_pct",
        "workflow.guards.max_exposure_pct",
        "workflow.guards.max_leverage",
        "workflow.guards.cooldown_s",
        "workflow.guards.max_trades_per_day",
        "workflow.guards.max_daily_loss_pct",
        "workflow.guards.kill_switch",
        "workflow.guards.expiry.max_age_s",
        "workflow.guards.expiry.max_price_move_pct",
        "workflow.execution.stop_pct",
        "workflow.execution.target_pct",
        "workflow.execution.size_pct",
        "workflow.execution.longest_hold_minutes",
        "workflow.execution.opposite",
        "workflow.paper.ledger",
        "workflow.paper.instruments",
        "workflow.paper.deposit",
        "workflow.paper.taker_fee_bps",
        "workflow.paper.slippage_bps",
        "workflow.paper.leverage",
        "workflow.paper.maintenance_margin_pct",
        "workflow.paper.liquidation_fee_bps",
        "workflow.paper.max_fill_wait_s",
        "workflow.exchange.live",
        "workflow.exchange.api_key_env",
        "workflow.exchange.api_secret_env",
        "workflow.exchange.binance_url",
        "workflow.exchange.bybit_url",
        "workflow.exchange.journal",
        "workflow.exchange.timeout_s",
        "workflow.exchange.receive_window_s",
        "workflow.runs.folder",
        "workflow.runs.postgres_url",
        "workflow.runs.postgres_password_env",
        "workflow.runs.at_once",
        "workflow.runs.poll_ms",
        "workflow.runs.sweep_s",
        "workflow.runs.keep_days",
        "workflow.runs.shadow",
        "workflow.runs.ab",
        "workflow.runs.rag_url",
        "workflow.runs.rag_token_env",
        "intake.host",
        "intake.port",
        "intake.http",
        "intake.http_port",
        "intake.http_allowed_hosts",
        "intake.http_allowed_origins",
        "intake.allow_unauthenticated_remote",
        "intake.keys_file",
        "intake.auth_tokens_env",
        "intake.tls_certificate",
        "intake.tls_key",
        "intake.tls_client_ca",
        "intake.max_frame_kib",
        "intake.max_received_mib",
        "intake.frame_timeout_s",
        "intake.idle_timeout_s",
        "intake.write_timeout_s",
        "intake.max_unsent_mib",
        "intake.max_batch_reply_kib",
        "intake.max_connections",
        "intake.max_connections_per_address",
        "intake.max_unauthenticated_connections",
        "intake.authentication_timeout_s",
        "intake.max_in_flight",
        "intake.max_in_flight_per_connection",
        "intake.request_deadline_s",
        "intake.rate_limit_per_s",
        "intake.rate_burst",
        "intake.work_limit_ms_per_s",
        "intake.work_burst_ms",
        "intake.limits_redis_url",
        "intake.limits_redis_password_env",
        "intake.limits_redis_timeout_ms",
        "intake.drain_timeout_s",
        "intake.max_queued",
        "llm.provider",
        "llm.model",
        "llm.base_url",
        "llm.api_key_env",
        "llm.temperature",
        "llm.effort",
        "llm.max_output_tokens",
        "llm.stream",
        "llm.prompt_caching",
        "llm.requests_per_minute",
        "llm.timeout_s",
        "llm.deadline_s",
        "llm.max_retries",
        "llm.daily_budget_usd",
        "llm.input_usd_per_mtok",
        "llm.output_usd_per_mtok",
        "llm.cached_input_usd_per_mtok",
    ),
}

# By the dotted key of each setting.
RELOAD: Final[dict[str, Reload]] = {key: kind for kind, keys in _KEYS.items() for key in keys}


class SettingChanges(msgspec.Struct, frozen=True):
    """The settings that differ between two readings, by what they need."""

    live: list[SettingDifference]
    restart: list[SettingDifference]
    parent: list[SettingDifference]


def changes(before: Settings, after: Settings) -> SettingChanges:
    found = differences(before, after)
    kinds: tuple[Reload, ...] = ("live", "restart", "parent")
    return SettingChanges(*([d for d in found if RELOAD[d.key] == kind] for kind in kinds))


def with_settings_of(settings: Settings, source: Settings, kinds: Iterable[Reload]) -> Settings:
    """The settings, with those of some kinds taken from `source`."""
    wanted = frozenset(kinds)
    for key in SETTINGS:
        if RELOAD[key] in wanted:
            value = functools.reduce(getattr, key.split("."), source)
            settings = _replaced(settings, key.split("."), value)
    return settings


def _replaced(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    inner = _replaced(getattr(config, name), rest, value) if rest else value
    return msgspec.structs.replace(config, **{name: inner})
