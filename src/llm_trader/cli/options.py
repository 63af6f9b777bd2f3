"""The flags of settings, options that commands share, and the decorator that makes commands."""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, get_type_hints

from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli.output import Result, Results, present, progress_bar
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import Millis

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

Command = Callable[..., None]


class Flag(NamedTuple):
    """`default` repeats the setting's default, because `--help` must not load the settings."""

    key: str
    help: str
    default: str | None = None
    short: str | None = None
    type: Any = str
    # The flag says no to a setting that is on by default.
    negates: bool = False

    def override(self, value: Any) -> Any:
        return not value if self.negates and value is not None else value

    def parameter(self, name: str) -> inspect.Parameter:
        default = "" if self.default is None else f", default {self.default}"
        # Given in full, so that a bool gets no second flag --no-...
        names = [f"--{name.replace('_', '-')}", *([self.short] if self.short else [])]
        option = Option(*names, help=f"{self.help} [setting {self.key}{default}]")
        return _keyword(name, Annotated[self.type | None, option], None)


SETTING_FLAGS: Final = {
    "store": Flag("market.store", "Folder of the market store.", "var/market", type=Path),
    "archive_url": Flag(
        "market.archive.url",
        "Address of the archive, or of a copy.",
        "https://data.binance.vision",
    ),
    "parallel": Flag(
        "market.archive.parallel", "Files to download at the same time.", "6", type=int
    ),
    "index": Flag("index.path", "Folder of the embedded index.", "var/index", type=Path),
    "record": Flag(
        "decisions.record", "Folder of the record of decisions.", "var/decisions", type=Path
    ),
    "keep_days": Flag("market.keep_days", "Days to keep, up to the newest data.", "400", type=int),
    "qdrant_url": Flag("index.qdrant.url", "Address of a Qdrant server to use as the index."),
    "text": Flag(
        "embedding.text.enabled", "Also make text vectors, which needs a model.", type=bool
    ),
    "model": Flag("embedding.text.model", "Name of the text model.", "BAAI/bge-small-en-v1.5"),
    "model_path": Flag("embedding.text.model_path", "Folder of the text model.", type=Path),
    "cache_dir": Flag("embedding.text.cache_dir", "Folder of fetched models.", type=Path),
    "vector": Flag("retrieval.vector", "Vectors to compare: state, text or hybrid.", "state"),
    "lookback_days": Flag(
        "retrieval.lookback_days", "Days before a query that are searched.", "90", type=int
    ),
    "calibration": Flag(
        "retrieval.calibration", "Calibration file of `llm-trader calibrate`.", type=Path
    ),
    "interval": Flag(
        "snapshot.interval_minutes", "Minutes from one snapshot to the next.", "15", "-i", type=int
    ),
    "intraday": Flag("snapshot.intraday", "Candles of the snapshots: 1m, 3m, 5m or auto.", "auto"),
    "host": Flag("serving.host", "Address of the server.", "127.0.0.1"),
    "port": Flag(
        "serving.port",
        "TCP port of the server; a server takes any free port for 0.",
        "7879",
        "-p",
        type=int,
    ),
    "http_port": Flag(
        "serving.http_port",
        "Port for HTTP and WebSocket; by default the one after --port, 7880.",
        type=int,
    ),
    "no_http": Flag(
        "serving.http",
        "Do not answer over HTTP and WebSocket.",
        "True",
        type=bool,
        negates=True,
    ),
    "graphql": Flag(
        "serving.graphql", "Also answer GraphQL at POST /graphql of the HTTP port.", type=bool
    ),
    "mcp": Flag("serving.mcp", "Also answer assistants at POST /mcp of the HTTP port.", type=bool),
    "workers": Flag("serving.workers", "Processes that answer on the same ports.", "1", type=int),
    "min_matches": Flag("serving.min_matches", "Refuse a query with fewer matches.", "3", type=int),
    "tls_certificate": Flag(
        "serving.tls_certificate", "PEM file of the server's certificate; turns TLS on.", type=Path
    ),
    "tls_key": Flag("serving.tls_key", "PEM file of the certificate's key.", type=Path),
    "keys_file": Flag("serving.keys_file", "File of the API keys.", type=Path),
    "auth_tokens_env": Flag(
        "serving.auth_tokens_env", "Environment variable that holds accepted tokens."
    ),
    "allow_unauthenticated_remote": Flag(
        "serving.allow_unauthenticated_remote",
        "Serve other machines without asking for a key.",
        type=bool,
    ),
    "runs": Flag("workflow.runs.folder", "Folder of the runs.", "var/workflow", type=Path),
    "postgres_url": Flag(
        "workflow.runs.postgres_url", "Postgres database of the runs, instead of the folder."
    ),
    "rag_url": Flag(
        "workflow.runs.rag_url", "Address of the RAG server, instead of the one in the graph."
    ),
    "shadow": Flag("workflow.runs.shadow", "Decide, and execute nothing.", type=bool),
    "ab": Flag(
        "workflow.runs.ab",
        "Ask with both prompts, and execute the decision of this one: rag or baseline.",
        "off",
    ),
    "audit_folder": Flag("audit.folder", "Folder of the audit log.", type=Path),
    "forecasts_folder": Flag(
        "forecasts.folder",
        "Folder of the forecast journal; by default `forecasts` beside the index.",
        type=Path,
    ),
    "log_level": Flag(
        "logging.level", "Least severity to log: trace, debug, info, warn or error.", "info", "-l"
    ),
}

_SYMBOLS_HELP = "Symbols, separated by commas; all of the {} by default."

_SYMBOLS = ("--symbols", "--symbol")
StoreSymbols = Annotated[str, Option(*_SYMBOLS, help=_SYMBOLS_HELP.format("store"))]
IndexSymbols = Annotated[str, Option(*_SYMBOLS, help=_SYMBOLS_HELP.format("index"))]
OneSymbol = Annotated[str, Option("--symbol", "--symbols", help="Symbol, such as BTCUSDT.")]
Start = Annotated[
    str,
    Option("--start", "-s", help="First time: a number of days before the end, or RFC 3339."),
]
End = Annotated[
    str,
    Option("--end", "-e", help="Last time: latest (the end of the data), now, or RFC 3339."),
]
Samples = Annotated[int, Option(min=1, help="Number of sampled queries.")]
Seed = Annotated[int, Option(help="Equal seeds give equal results.")]

ConfigFile = Annotated[
    Path | None, Option(help="TOML file of the settings; see config/example.toml.")
]

AsJson = Annotated[bool, Option("--json", help="Print JSON instead of tables.")]


def with_job(
    *flags: str, unit: str | None = None, steps_per_unit: int = 1, quiet: bool = True
) -> Callable[[Callable[..., Result | Results | None]], Command]:
    """Turns a function with a parameter `job` into a command that presents the function's result.

    The named flags replace that parameter, except for flags that the function declares itself. A
    parameter whose type is a dataclass is a group: each of its fields becomes an option. The last
    options are `--config` and, if there is a result, `--json`. Progress is shown in units, if
    there are any. A `quiet` command logs only warnings.
    """

    def decorate(function: Callable[..., Result | Results | None]) -> Command:
        hints = get_type_hints(function, include_extras=True)
        groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        parameters = _parameters(function, hints, groups, flags)
        names = inspect.signature(function).parameters.keys() - {"job"} - groups.keys()

        def command(**given: Any) -> None:
            values = {option.name: option.default for option in parameters} | given
            overrides = {
                SETTING_FLAGS[flag].key: SETTING_FLAGS[flag].override(values[flag])
                for flag in flags
            }
            if quiet:
                overrides["logging.level"] = "warn"
            settings = _load_settings(values["config"], overrides)
            arguments = {name: values[name] for name in names}
            for name, group in groups.items():
                arguments[name] = group(**{f.name: values[f.name] for f in fields(group)})
            with progress_bar(unit, steps_per_unit) as progress:
                again = partial(_read_settings, values["config"], overrides)
                job = Job(settings, os.environ, now_ms(), progress, again)
                result = function(job=job, **arguments)
            if result is not None:
                present(result, json=values["json"])

        # Typer reads these, and knows nothing of groups and of the flags of settings.
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {option.name: option.annotation for option in parameters}
        return command

    return decorate


def _parameters(
    function: Callable[..., Any],
    hints: dict[str, Any],
    groups: dict[str, Any],
    flags: tuple[str, ...],
) -> list[inspect.Parameter]:
    """The options of a command, in the order of the function's parameters."""
    declared = hints.keys() | {field.name for group in groups.values() for field in fields(group)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "job":
            parameters += [SETTING_FLAGS[f].parameter(f) for f in flags if f not in declared]
        elif name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            parameters += [_keyword(f.name, types[f.name], f.default) for f in fields(groups[name])]
        else:
            parameters.append(_keyword(name, hints[name], parameter.default))
    parameters.append(_keyword("config", ConfigFile, None))
    if hints["return"] is not NoneType:
        parameters.append(_keyword("json", AsJson, False))
    return parameters


def _read_settings(config: Path | None, overrides: dict[str, Any]) -> Settings:
    from llm_trader.settings.loading import load_settings

    return load_settings(config, environ=os.environ, overrides=overrides)


def _load_settings(config: Path | None, overrides: dict[str, Any]) -> Settings:
    """Load the settings of flags, environment and file, and configure the log."""
    from llm_trader.errors import ConfigurationError
    from llm_trader.logs import configure_logging
    from llm_trader.settings.loading import load_settings

    try:
        settings = load_settings(config, environ=os.environ, overrides=overrides)
    except ConfigurationError:
        from llm_trader.app.evaluation import is_plan

        # `--config` once took the plan of an evaluation.
        if config is not None and is_plan(config):
            raise ConfigurationError(
                f"{config} is the plan of an evaluation, and --config takes a file of settings; "
                f"give it to llm-trader evaluate as --plan {config}"
            ) from None
        raise
    configure_logging(settings.logging.level, settings.logging.format)
    return settings


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def with_index(job: Job, folder: Path) -> Job:
    """The job with another folder of the index, as the flag --index of other commands sets it."""
    import msgspec

    replace = msgspec.structs.replace
    index = replace(job.settings.index, path=folder.expanduser())
    return job._replace(settings=replace(job.settings, index=index))


def one_symbol(text: str) -> str:
    """The symbol of a command that takes one."""
    symbols = symbol_list(text)
    if len(symbols) != 1:
        raise InvalidInputError(f"--symbol {text!r} should name one symbol, such as BTCUSDT")
    return symbols[0]


def symbol_list(text: str) -> list[str]:
    """The symbols of a store, also where they are written `btc-usdt` or `BTC/USDT:USDT`."""
    return [re.sub("[-_/]", "", name.partition(":")[0]) for name in written_symbols(text)]


def written_symbols(text: str) -> list[str]:
    """Symbols as they are written, for an exchange to find; in capitals, which people need not."""
    return [symbol.strip().upper() for symbol in text.split(",") if symbol.strip()]


def now_ms() -> Millis:
    """The present time; commands read the clock only here."""
    return int(time.time() * 1000)
