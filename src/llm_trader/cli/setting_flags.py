"""The one table from command-line flags to settings, and how commands get them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, get_type_hints

import typer

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

Command = Callable[..., None]


class SettingFlag(NamedTuple):
    """`default` repeats what the setting's config says, as help must not load the settings."""

    key: str
    type: Any
    help: str
    default: str | None = None
    names: tuple[str, ...] = ()

    def parameter(self, name: str) -> inspect.Parameter:
        default = "" if self.default is None else f", default {self.default}"
        option = typer.Option(
            *(self.names or (f"--{name.replace('_', '-')}",)),
            help=f"{self.help} [setting {self.key}{default}]",
        )
        return _keyword(name, Annotated[self.type | None, option], None)


SETTING_FLAGS: Final = {
    "store": SettingFlag("market.store", Path, "Folder of the market store.", "var/market"),
    "index": SettingFlag("index.path", Path, "Folder of the embedded index.", "var/index"),
    "qdrant_url": SettingFlag(
        "index.qdrant.url", str, "Address of a Qdrant server to use as the index."
    ),
    "text": SettingFlag(
        "embedding.text.enabled",
        bool,
        "Also make text vectors, which needs a model.",
        names=("--text",),
    ),
    "model": SettingFlag(
        "embedding.text.model", str, "Name of the text model.", "BAAI/bge-small-en-v1.5"
    ),
    "model_path": SettingFlag("embedding.text.model_path", Path, "Folder of the text model."),
    "cache_dir": SettingFlag("embedding.text.cache_dir", Path, "Folder of fetched models."),
    "vector": SettingFlag(
        "retrieval.vector", str, "Vectors to compare: state, text or hybrid.", "state"
    ),
    "interval": SettingFlag(
        "snapshot.interval_minutes",
        int,
        "Minutes from one snapshot to the next.",
        "15",
        ("--interval", "-i"),
    ),
    "intraday": SettingFlag(
        "snapshot.intraday", str, "Candles of the snapshots: 1m, 3m, 5m or auto.", "auto"
    ),
    "host": SettingFlag("serving.host", str, "Address of the server.", "127.0.0.1"),
    "port": SettingFlag(
        "serving.port",
        int,
        "TCP port of the server; a server takes any free port for 0.",
        "7879",
        ("--port", "-p"),
    ),
    "min_matches": SettingFlag(
        "serving.min_matches", int, "Refuse a query with fewer matches.", "3"
    ),
    "auth_tokens_env": SettingFlag(
        "serving.auth_tokens_env", str, "Environment variable that holds the accepted tokens."
    ),
    "allow_unauthenticated_remote": SettingFlag(
        "serving.allow_unauthenticated_remote",
        bool,
        "Serve other machines without asking for a token.",
        names=("--allow-unauthenticated-remote",),
    ),
    "log_level": SettingFlag(
        "logging.level",
        str,
        "Least severity to log: trace, debug, info, warn or error.",
        "info",
        ("--log-level", "-l"),
    ),
}

_CONFIG: Final = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of the settings; see config/example.toml."),
]


def with_settings(*flags: str, quiet: bool = True) -> Callable[[Command], Command]:
    """Makes a command of a function with a parameter `settings`.

    The named flags of the table take the parameter's place, but for those that the function
    declares itself; `--config` comes last, before `--json`. A `quiet` command logs warnings only,
    so that its output stays readable.
    """

    def decorate(function: Command) -> Command:
        parameters = _parameters(function, flags)
        signature = inspect.Signature(parameters)
        own = inspect.signature(function).parameters

        def command(**options: Any) -> None:
            bound = signature.bind(**options)
            bound.apply_defaults()
            arguments = bound.arguments
            overrides = {SETTING_FLAGS[flag].key: arguments[flag] for flag in flags}
            if quiet:
                overrides["logging.level"] = "warn"
            settings = load_settings_and_log(arguments["config"], overrides)
            wanted = {name: arguments[name] for name in own if name in arguments}
            function(**wanted, settings=settings)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def load_settings_and_log(config: Path | None, overrides: dict[str, Any]) -> Settings:
    """The settings of flags, environment and file; their log is configured."""
    from llm_trader.errors import ConfigurationError
    from llm_trader.logs import configure_logging
    from llm_trader.settings.loading import load_settings

    try:
        settings = load_settings(config, environ=os.environ, overrides=overrides)
    except ConfigurationError:
        _refuse_plan(config)
        raise
    configure_logging(settings.logging.level, settings.logging.format)
    return settings


def _refuse_plan(config: Path | None) -> None:
    """`--config` was the flag of evaluation plans once; says what to type now."""
    from llm_trader.app.evaluation import is_plan
    from llm_trader.errors import ConfigurationError

    if config is not None and is_plan(config):
        raise ConfigurationError(
            f"{config} is the plan of an evaluation, and --config takes a file of settings; give "
            f"it to llm-trader evaluate as --plan {config}"
        )


def _parameters(function: Command, flags: tuple[str, ...]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, localns={"Settings": object}, include_extras=True)
    own = inspect.signature(function).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name == "settings":
            parameters += [SETTING_FLAGS[flag].parameter(flag) for flag in flags if flag not in own]
        else:
            parameters.append(_keyword(name, hints[name], parameter.default))
    last = len(parameters) - (parameters[-1:] != [] and parameters[-1].name == "json")
    parameters.insert(last, _keyword("config", _CONFIG, None))
    return parameters


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)
