"""`llm-trader models`: the text models there are, fetching one, and trying the one that is set."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from llm_trader.cli import options
from llm_trader.errors import ConfigurationError
from llm_trader.timeframe import parse_rfc3339

if TYPE_CHECKING:
    from llm_trader.embedding.fastembed_models import ListedModel
    from llm_trader.embedding.text import FastEmbedEncoder
    from llm_trader.snapshot.document import Form

app = typer.Typer(no_args_is_help=True, help="Text models: list them, fetch one, try it.")

# A hub that does not answer within this is not there.
_ANSWER_WITHIN_S: Final = 8
_CHECKED_SENTENCES: Final = 32

_Model = Annotated[
    str | None, typer.Option("--model", help="A model's name. [setting embedding.text.model]")
]
_ModelPath = Annotated[
    Path | None,
    typer.Option("--model-path", help="Its folder. [setting embedding.text.model_path]"),
]
_CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", help="Where fetched models are. [setting embedding.text.cache_dir]"
    ),
]


@app.command()
def pull(
    model: Annotated[
        str | None,
        typer.Argument(help="A model of `llm-trader models list`; else the one that is set."),
    ] = None,
    cache_dir: _CacheDir = None,
    config: options.Config = None,
) -> None:
    """Fetch a text model from its hub. No other command downloads anything.

    Without a network, bring a folder with the model by hand and set embedding.text.model_path;
    docs/text.md says what belongs into it.
    """
    from msgspec import structs

    from llm_trader.embedding.fastembed_models import listed_model
    from llm_trader.embedding.text import FastEmbedEncoder

    settings = options.settings_of(
        config, embedding__text__model=model, embedding__text__cache_dir=cache_dir
    )
    text = settings.embedding.text
    listed = listed_model(text.model)
    if listed is None or listed.hub_name is None:
        raise ConfigurationError(
            f"no hub is known for {text.model}: choose one of `llm-trader models list`"
        )
    _download(listed, text.cache_dir)
    encoder = FastEmbedEncoder.load(structs.replace(text, model_path=None))
    typer.echo(f"{encoder.name}: {encoder.dimension} dimensions, version {encoder.version}")


@app.command("list")
def list_models(
    cache_dir: _CacheDir = None, config: options.Config = None, json: options.Json = False
) -> None:
    """List the models that can be fetched, and which of them are on this machine."""
    from rich.table import Table

    from llm_trader.embedding.fastembed_models import listed_models

    settings = options.settings_of(config, embedding__text__cache_dir=cache_dir)
    folder = settings.embedding.text.cache_dir
    models = [
        {
            "model": listed.name,
            "dimension": listed.dimension,
            "size_mb": listed.size_mb,
            "here": _is_here(listed, folder),
        }
        for listed in listed_models()
    ]
    if json:
        options.print_json(models)
        return
    table = Table("model", "dimension", "MB", "here", box=None)
    for row in models:
        here = "yes" if row["here"] else ""
        table.add_row(str(row["model"]), str(row["dimension"]), str(row["size_mb"]), here)
    options.tables().print(table)


@app.command()
def check(
    model: _Model = None,
    model_path: _ModelPath = None,
    cache_dir: _CacheDir = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Load the model that is set and encode some sentences with it."""
    from llm_trader.embedding.text import FastEmbedEncoder

    settings = options.settings_of(
        config,
        embedding__text__model=model,
        embedding__text__model_path=model_path,
        embedding__text__cache_dir=cache_dir,
    )
    text = settings.embedding.text
    encoder = FastEmbedEncoder.load(text)
    found = {
        "model": encoder.name,
        "dimension": encoder.dimension,
        "digest": encoder.digest,
        "max_tokens": encoder.max_tokens,
        **_tried(encoder, text.form),
    }
    if json:
        options.print_json(found)
    else:
        for name, value in found.items():
            typer.echo(f"{name.replace('_', ' '):25}{value}")


def _download(listed: ListedModel, cache_dir: Path | None) -> None:
    """Raises ConfigurationError within seconds where the hub does not answer."""
    from threading import Thread

    from llm_trader.embedding.model_folder import TOKENIZER

    huggingface_hub = import_module("huggingface_hub")
    failure: list[Exception] = []

    def ask() -> None:
        try:
            huggingface_hub.model_info(str(listed.hub_name), timeout=_ANSWER_WITHIN_S)
        except Exception as error:  # noqa: BLE001  told below
            failure.append(error)

    # Looking up a name has no timeout of its own.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * _ANSWER_WITHIN_S)
    if asking.is_alive() or failure:
        raise _not_fetched(listed, failure[0] if failure else TimeoutError("no answer"))
    wanted = [*TOKENIZER, "config.json", "special_tokens_map.json", listed.model_file]
    try:
        huggingface_hub.snapshot_download(
            str(listed.hub_name),
            cache_dir=_cache_folder(cache_dir),
            allow_patterns=[*wanted, *listed.additional_files],
        )
    except Exception as error:
        raise _not_fetched(listed, error) from error


def _not_fetched(listed: ListedModel, error: Exception) -> ConfigurationError:
    reason = " ".join(str(error).split())[:200]
    return ConfigurationError(
        f"{listed.name} cannot be fetched ({type(error).__name__}: {reason}). Without a network, "
        f"copy a folder that holds {listed.model_file}, tokenizer.json and tokenizer_config.json "
        "to this machine and set embedding.text.model_path to it"
    )


def _is_here(listed: ListedModel, cache_dir: Path | None) -> bool:
    hub = import_module("huggingface_hub")
    found = [
        hub.try_to_load_from_cache(listed.hub_name, name, cache_dir=_cache_folder(cache_dir))
        for name in (listed.model_file, *listed.additional_files)
        if listed.hub_name is not None
    ]
    return bool(found) and all(isinstance(path, str) for path in found)


def _cache_folder(cache_dir: Path | None) -> Path:
    """As FastEmbed chooses it."""
    choices = import_module("fastembed.common.utils")
    return Path(
        choices.define_cache_dir(None if cache_dir is None else str(cache_dir.expanduser()))
    )


def _tried(encoder: FastEmbedEncoder, form: Form) -> dict[str, float]:
    """Length and speed on sentences of a simulated market, as they are at ingestion."""
    told = _some_sentences(form)
    encoder.encode(told[:1])
    alone_s = min(_seconds(lambda: encoder.encode(told[:1])) for _ in range(5))
    return {
        "longest_sentence_tokens": max(encoder.token_counts(told), default=0),
        "one_sentence_ms": round(alone_s * 1000, 1),
        "texts_per_second": round(len(told) / _seconds(lambda: encoder.encode(told)), 1),
    }


def _some_sentences(form: Form) -> list[str]:
    import numpy as np

    from llm_trader.market.simulation import simulate
    from llm_trader.snapshot.builder import build_snapshots
    from llm_trader.snapshot.document import sentences
    from llm_trader.timeframe import DAY_MS, HOUR_MS

    start_ms = parse_rfc3339("2025-01-01T00:00:00Z")
    market = simulate("BTCUSDT", start_ms=start_ms, days=30, seed=1)
    times = start_ms + 25 * DAY_MS + np.arange(_CHECKED_SENTENCES) * HOUR_MS
    return sentences(build_snapshots(market, times), form)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
