"""The settings: one frozen tree of sections, with defaults, bounds and descriptions.

No secret is ever in the tree: where one is needed, the setting holds the name of the environment
variable that has it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llm_trader.logs import LogFormat, LogLevel

ENV_PREFIX: Final = "LLM_TRADER_"
URL_SECRET: Final = "url_secret"  # noqa: S105  a kind of error

_MINUTES_A_DAY: Final = 1440


def _folder(path: Path) -> Path:
    if not path.parts:
        raise PydanticCustomError("folder_empty", "should name a folder")
    try:
        return path.expanduser()
    except RuntimeError:
        raise PydanticCustomError("folder_home", "should start with a known home folder") from None


def _divides_a_day(minutes: int) -> int:
    if _MINUTES_A_DAY % minutes:
        raise PydanticCustomError("day_grid", "should divide a day (1440 minutes) evenly")
    return minutes


def _variable_name(name: str) -> str:
    # Capitals only, so that a token pasted here by mistake is most likely refused.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise PydanticCustomError(
            "variable_name", "should be the name of an environment variable, in capitals"
        )
    return name


def _url_without_secret(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message would be told with the value
        raise PydanticCustomError(URL_SECRET, "should be a URL") from None
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise PydanticCustomError(
            URL_SECRET, "should hold no password; name the environment variable that has it"
        )
    return url


Folder = Annotated[Path, AfterValidator(_folder)]
EnvName = Annotated[str, AfterValidator(_variable_name)]
Url = Annotated[str, AfterValidator(_url_without_secret)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation in (int, float):
            raise PydanticCustomError("number_type", "should be a number")
        return value


class MarketSettings(_Section):
    """Collected market data."""

    store: Folder = Field(
        default=Path("var/market"),
        description="Folder of the LMDB market store; a relative one is under the working folder.",
    )


class SnapshotSettings(_Section):
    """Indicators of one moment."""

    intraday: Literal["auto", "1m", "3m", "5m"] = Field(
        default="auto",
        description="Timeframe of intraday candles; auto is 3m where the store has it, else 5m.",
    )
    interval_minutes: Annotated[
        int, Field(ge=1, le=_MINUTES_A_DAY), AfterValidator(_divides_a_day)
    ] = Field(
        default=15, description="Minutes from one snapshot to the next; divides a day evenly."
    )


class QdrantSettings(_Section):
    """A Qdrant server or cluster as the index, instead of the embedded one."""

    url: Annotated[Url, Field(pattern=r"^https?://[^/\s]+$")] | None = Field(
        default=None,
        description="Address of the server; https for TLS. Without one the embedded index is used.",
        examples=["http://localhost:6333"],
    )
    grpc_port: int = Field(default=6334, ge=1, le=65535, description="Port of its gRPC service.")
    collection: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")] = Field(
        default="llm_trader",
        description="Name that is searched: an alias of the newest of its versions.",
    )
    api_key_env: EnvName | None = Field(
        default=None,
        description="Name of the environment variable that holds the API key or JWT.",
        examples=["QDRANT_API_KEY"],
    )
    ca_file: Folder | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate, where the "
        "system does not know it.",
        examples=["/etc/ssl/qdrant-ca.pem"],
    )
    timeout_s: float = Field(
        default=5.0, ge=0.1, le=600, description="Seconds that one call to the server may take."
    )
    retry_s: float = Field(
        default=8.0,
        ge=0,
        le=600,
        description="Seconds that a call is tried again for, with backoff, when the connection "
        "is lost; keep it below serving.request_deadline_s.",
    )
    pool_size: int = Field(
        default=3, ge=1, le=64, description="Number of connections kept open to the server."
    )
    shard_number: int = Field(
        default=1, ge=1, le=256, description="Shards of a collection that is made."
    )
    replication_factor: int = Field(
        default=1, ge=1, le=16, description="Copies of each shard of a collection that is made."
    )
    approximate: bool = Field(
        default=False,
        description="Search the graph instead of comparing with every point: faster beyond some "
        "hundred thousand points a symbol, and not exact; see `llm-trader index recall`.",
    )
    hnsw_ef: int = Field(
        default=256,
        ge=16,
        le=4096,
        description="Breadth of an approximate search; more is slower and nearer to exact.",
    )
    quantization: Literal["none", "int8"] = Field(
        default="none",
        description="Vectors of a collection that is made, also kept as bytes in memory.",
    )
    node_urls: tuple[Url, ...] = Field(
        default=(),
        description="REST addresses of all nodes of a cluster, for backups; else that of url.",
        examples=[["http://node-1:6333", "http://node-2:6333"]],
    )


class IndexSettings(_Section):
    """The vectors of past snapshots."""

    path: Folder = Field(
        default=Path("var/index"),
        description="Folder of the embedded index; a relative one is under the working folder.",
    )
    qdrant: QdrantSettings = QdrantSettings()


class TextSettings(_Section):
    """Text vectors: the state as a sentence, embedded by a transformer. Needs the extra `text`."""

    enabled: bool = Field(
        default=False,
        description="Make text vectors at ingestion, and load the model to answer by them; also "
        "on where retrieval.vector is text or hybrid.",
    )
    model: str = Field(
        default="BAAI/bge-small-en-v1.5",
        min_length=1,
        description="Name of a model that FastEmbed lists; see `llm-trader models list`.",
    )
    model_path: Folder | None = Field(
        default=None,
        description="Folder of an ONNX model with its tokenizer, used instead of the cache.",
        examples=["/srv/models/bge-small-en-v1.5"],
    )
    cache_dir: Folder | None = Field(
        default=None,
        description="Folder that `llm-trader models pull` fills; FastEmbed's own if left out.",
        examples=["var/models"],
    )
    form: Literal["detailed", "compact"] = Field(
        default="detailed", description="Form of the sentence."
    )
    threads: int = Field(
        default=2, ge=1, le=64, description="Number of batches that are embedded at once."
    )
    batch_size: int = Field(
        default=8, ge=1, le=1024, description="Number of sentences in a batch at ingestion."
    )
    cache_size: int = Field(
        default=4096,
        ge=0,
        le=1_000_000,
        description="Number of sentences whose vectors a process keeps.",
    )


class EmbeddingSettings(_Section):
    """What vectors are made of."""

    text: TextSettings = TextSettings()


class CacheSettings(_Section):
    """Text vectors shared between servers. Needs the extra `redis`."""

    redis_url: Annotated[Url, Field(pattern=r"^(rediss?|unix)://\S+$")] | None = Field(
        default=None,
        description="Address of a Redis; without one each process keeps its own.",
        examples=["redis://localhost:6379/0"],
    )
    redis_password_env: EnvName | None = Field(
        default=None,
        description="Name of the environment variable that holds its password.",
        examples=["REDIS_PASSWORD"],
    )
    redis_timeout_ms: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="Milliseconds after which a lookup counts as a miss.",
    )
    ttl_hours: int = Field(
        default=168, ge=1, le=8760, description="Hours that a vector is kept there."
    )


class IngestSettings(_Section):
    """Filling the index from the market store."""

    batch_days: int = Field(
        default=16,
        ge=1,
        le=365,
        description="Days of snapshots per transaction: more is faster, fewer lose less to a "
        "stop; with text vectors it is one day.",
    )


class RetrievalSettings(_Section):
    """What a query gets where its own `query_config` says nothing."""

    vector: Literal["state", "text", "hybrid"] = Field(
        default="state",
        description="What is compared: the numeric state, its wording, or both, fused by rank.",
    )
    lookback_days: int = Field(
        default=90, ge=1, le=365, description="Days before the query's time that are searched."
    )
    top_k: int = Field(default=5, ge=1, le=50, description="Number of matches returned, at most.")
    min_similarity: float = Field(
        default=0.7, ge=0, le=1, description="Cosine similarity that a match has at least."
    )
    include_regime_filters: bool = Field(
        default=True,
        description="Search only states of like open interest change and of the same funding sign, "
        "where either is pronounced.",
    )
    min_gap_hours: float = Field(
        default=4.0,
        ge=0,
        le=168,
        description="Hours that two matches of one reply are apart, at least; 0 allows overlaps.",
    )
    evidence_k: int = Field(
        default=50,
        ge=10,
        le=500,
        description="Number of past episodes summed up as evidence, at most.",
    )
    calibration: Folder | None = Field(
        default=None,
        description="File that `llm-trader calibrate` wrote: gives evidence its 80 % bands, and "
        "the verdict what was measured. A query unlike those it was fitted on goes without.",
        examples=["var/calibration.json"],
    )
    max_calibration_age_days: int = Field(
        default=180,
        ge=1,
        le=3650,
        description="Days before the query's time that a calibration's last outcome may lie; an "
        "older one is not used.",
    )


class ServingSettings(_Section):
    """JSON-RPC 2.0 over TCP."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address or host name listened on."
    )
    port: int = Field(
        default=7879, ge=0, le=65535, description="TCP port listened on; 0 takes a free one."
    )
    min_matches: int = Field(
        default=3,
        ge=0,
        le=50,
        description="Number of matches below which a query is refused as insufficient.",
    )
    allow_unauthenticated_remote: bool = Field(
        default=False, description="Serve other machines even though no tokens are asked for."
    )
    auth_tokens_env: EnvName | None = Field(
        default=None,
        description="Name of the environment variable that holds the accepted tokens, separated "
        "by commas; without it no token is asked for.",
        examples=["LLM_TRADER_TOKENS"],
    )
    max_frame_kib: int = Field(
        default=1024, ge=1, le=65536, description="Size limit of one request, KiB."
    )
    frame_timeout_s: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        description="Seconds from the first byte of a request to its last.",
    )
    idle_timeout_s: float = Field(
        default=600.0,
        ge=0.1,
        le=86400,
        description="Seconds a connection may stay silent between requests.",
    )
    write_timeout_s: float = Field(
        default=30.0, ge=0.1, le=3600, description="Seconds a client may leave a reply unread."
    )
    max_connections: int = Field(
        default=1000, ge=1, le=100_000, description="Number of open connections, at most."
    )
    max_in_flight: int = Field(
        default=256, ge=1, le=100_000, description="Number of requests worked on at once, in all."
    )
    max_in_flight_per_connection: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Number of requests worked on at once, per connection.",
    )
    request_deadline_s: float = Field(
        default=10.0, ge=0.1, le=600, description="Seconds after which a request is given up."
    )
    rate_limit_per_s: float = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="Requests a second from one client; 0 sets no limit.",
    )
    drain_timeout_s: float = Field(
        default=20.0,
        ge=0.1,
        le=600,
        description="Seconds that running requests get to finish at shutdown.",
    )
    max_data_age_minutes: int = Field(
        default=30,
        ge=1,
        le=525_600,
        description="Minutes before its timestamp that the store's newest candle may lie, for a "
        "query that leaves out current_state; older is refused as stale.",
    )


class LoggingSettings(_Section):
    """Log lines, on standard error."""

    level: LogLevel = Field(
        default="info",
        description="Least severity that is logged; trace adds the debug lines of the libraries.",
    )
    format: LogFormat = Field(
        default="auto", description="Form of a line; auto is console on a terminal, else JSON."
    )


class Settings(BaseSettings):
    """All settings. Made directly, it holds defaults and arguments; `load_settings` reads more."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    market: MarketSettings = MarketSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    cache: CacheSettings = CacheSettings()
    index: IndexSettings = IndexSettings()
    ingest: IngestSettings = IngestSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    serving: ServingSettings = ServingSettings()
    logging: LoggingSettings = LoggingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all values; equal settings have equal digests."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield prefix + name, type(field.default)
            yield from _sections(type(field.default), f"{prefix}{name}.")


# Sections and settings by their dotted keys, such as `index.qdrant` and `index.qdrant.url`.
SECTIONS: Final[dict[str, type[BaseModel]]] = dict(_sections(Settings))
SETTINGS: Final[dict[str, FieldInfo]] = {
    f"{section}.{name}": field
    for section, model in SECTIONS.items()
    for name, field in model.model_fields.items()
    if not isinstance(field.default, BaseModel)
}


def env_name(key: str) -> str:
    """The environment variable of a setting: `serving.port` is `LLM_TRADER_SERVING__PORT`."""
    return ENV_PREFIX + key.replace(".", "__").upper()
