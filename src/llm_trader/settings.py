"""One frozen tree of settings, read from four places.

What is given on the command line goes before the environment, that before the TOML file, that
before the defaults. The file is the one asked for, else that of `LLM_TRADER_CONFIG`, else
`llm-trader.toml` in the working directory if there is one. An environment variable is the key in
capitals: `LLM_TRADER_SERVING__PORT` is `serving.port`; an empty one counts as not given.

No secret is ever in the tree: where one is needed, the setting holds the name of the environment
variable that has it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from llm_trader.errors import ConfigurationError
from llm_trader.logs import LogFormat, LogLevel

DEFAULT_CONFIG: Final = Path("llm-trader.toml")
ENV_PREFIX: Final = "LLM_TRADER_"
CONFIG_ENV: Final = "LLM_TRADER_CONFIG"
TEST_DATA_ENV: Final = "LLM_TRADER_TEST_DATA"

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


Folder = Annotated[Path, AfterValidator(_folder)]
EnvName = Annotated[str, AfterValidator(_variable_name)]


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


class IndexSettings(_Section):
    """The vectors of past snapshots."""

    path: Folder = Field(
        default=Path("var/index"),
        description="Folder of the embedded index; a relative one is under the working folder.",
    )


class IngestSettings(_Section):
    """Filling the index from the market store."""

    batch_days: int = Field(
        default=16,
        ge=1,
        le=365,
        description="Days of snapshots per transaction: more is faster, fewer lose less to a stop.",
    )


class RetrievalSettings(_Section):
    """What a query gets where its own `query_config` says nothing."""

    vector: Literal["state"] = Field(
        default="state", description="Vector space that is searched; state is the numeric one."
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


SECTIONS: Final[dict[str, type[BaseModel]]] = {
    name: type(field.default) for name, field in Settings.model_fields.items()
}
SETTINGS: Final[dict[str, FieldInfo]] = {
    f"{section}.{name}": field
    for section, model in SECTIONS.items()
    for name, field in model.model_fields.items()
}


def env_name(key: str) -> str:
    """The environment variable of a setting: `serving.port` is `LLM_TRADER_SERVING__PORT`."""
    return ENV_PREFIX + key.replace(".", "__").upper()


_KEY_OF_ENV: Final = {env_name(key): key for key in SETTINGS}


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from command line, environment and file, in this order of precedence.

    `overrides` has dotted keys; None means not given. Raises ConfigurationError with everything
    that is wrong at once, in its message and as the list `details["problems"]`.
    """
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    variables = {_KEY_OF_ENV[name]: environ[name] for name in _KEY_OF_ENV if environ.get(name)}
    toml = TomlConfigSettingsSource(Settings, toml_file=None)
    path: Path | None = None
    problems: list[str] = []
    try:
        path = _config_file(config, environ)
        toml = _read_toml(path)
    except ConfigurationError as error:
        problems.append(error.message)
    problems += _unknown_flags(flags) + _unknown_variables(environ, flags, variables, toml)
    try:
        settings = _merged(flags, variables, toml)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.append(_problem(detail, flags, variables, path))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigurationError(f"the settings cannot be used:{listed}", problems=problems)
    return settings


def _config_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        path, origin = config, "asked for on the command line"
    elif environ.get(CONFIG_ENV):
        path, origin = Path(environ[CONFIG_ENV]), f"asked for by {CONFIG_ENV}"
    else:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    if not path.is_file():
        raise ConfigurationError(f"no settings file {path} ({origin})")
    return path


def _read_toml(path: Path | None) -> TomlConfigSettingsSource:
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _merged(
    flags: Mapping[str, Any], variables: Mapping[str, str], toml: TomlConfigSettingsSource
) -> Settings:
    sources = (
        InitSettingsSource(Settings, _nested(flags)),
        _environment_source(variables),
        toml,
    )
    # The parameter is inherited; type checkers make up an __init__ of the fields alone.
    return Settings(_build_sources=(sources, {}))  # type: ignore[call-arg]


def _environment_source(variables: Mapping[str, str]) -> EnvSettingsSource:
    source = EnvSettingsSource(Settings)
    # The library reads the process's environment; ours is an argument.
    source.env_vars = {env_name(key).lower(): value for key, value in variables.items()}
    return source


def _nested(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for key in flags.keys() & SETTINGS.keys():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = flags[key]
    return tree


def _unknown_flags(flags: Mapping[str, Any]) -> list[str]:
    return [
        f"unknown setting {key}{_suggestion(key)} (from the command line)"
        for key in flags
        if key not in SETTINGS
    ]


def _unknown_variables(
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
    toml: TomlConfigSettingsSource,
) -> list[str]:
    """Names of ours that mean nothing; one that a setting names, such as for tokens, is known."""
    serving = toml.toml_data.get("serving")
    named = {
        flags.get("serving.auth_tokens_env"),
        variables.get("serving.auth_tokens_env"),
        serving.get("auth_tokens_env") if isinstance(serving, dict) else None,
    }
    known = {CONFIG_ENV, TEST_DATA_ENV} | _KEY_OF_ENV.keys()
    return [
        f"unknown setting {name}{_variable_suggestion(name)} (from the environment)"
        for name in sorted(environ)
        if name.startswith(ENV_PREFIX) and name not in known and name not in named
    ]


def _problem(
    error: ErrorDetails,
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
    path: Path | None,
) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key}{_suggestion(key)} (from {path})"
    if error["type"] == "model_type":
        return f"{key} is a section, not a value (from {path})"
    origin = str(path)
    if key in flags:
        origin = "the command line"
    elif key in variables:
        origin = env_name(key)
    shown = "" if key.endswith("_env") else f" = {error['input']!r}"
    message = error["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{key}{shown} {message} (from {origin})"


def _suggestion(key: str) -> str:
    meant = _nearest_setting(key)
    return f"; did you mean {meant}?" if meant not in (None, key) else ""


def _variable_suggestion(variable: str) -> str:
    # One underscore where two belong is the likeliest slip.
    with_one = {known.replace("__", "_"): known for known in (*_KEY_OF_ENV, CONFIG_ENV)}
    meant = with_one.get(variable.upper().replace("__", "_"))
    if meant is None and _nearest(variable, [CONFIG_ENV], cutoff=0.9):
        meant = CONFIG_ENV
    if meant is None:
        key = _nearest_setting(variable.removeprefix(ENV_PREFIX).lower().replace("__", "."))
        meant = env_name(key) if key and key in SETTINGS else None
    return f"; did you mean {meant}?" if meant else ""


def _nearest_setting(key: str) -> str | None:
    """The right name in another section, else the nearest name in this one, else in any."""
    section, _, name = key.rpartition(".")
    by_name = {known.rpartition(".")[2]: known for known in SETTINGS}
    if name in by_name:
        return by_name[name]
    if not section and (nearest := _nearest(name, SECTIONS)):
        return nearest
    if section in SECTIONS and (nearest := _nearest(name, SECTIONS[section].model_fields)):
        return f"{section}.{nearest}"
    return by_name.get(_nearest(name, by_name) or "")


def _nearest(word: str, words: Iterable[str], cutoff: float = 0.7) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)), None)
