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
        "serving.metrics",
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
