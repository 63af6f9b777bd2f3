"""Lists text models, fetches them from their hub, and tries them on sentences."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from timeit import repeat, timeit
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import structs

from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.fastembed_models import ListedModel, listed_model, listed_models
from llm_trader.embedding.model_folder import TOKENIZER
from llm_trader.embedding.text import FastEmbedEncoder
from llm_trader.errors import ConfigurationError
from llm_trader.market.simulation import simulate
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.document import Form, sentences
from llm_trader.timeframe import DAY_MS, HOUR_MS, parse_rfc3339

# Seconds. A slower hub is of no use to a person who waits.
_HUB_TIMEOUT_S: Final = 8
# Enough to measure a steady rate, and few enough to take seconds.
_CHECKED_SENTENCES: Final = 32


class FetchableModel(msgspec.Struct, frozen=True):
    """A model that can be fetched; `here` if this machine has its files."""

    model: str
    dimension: int
    size_mb: int
    here: bool


class ModelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a model, and its speed on this machine."""

    model: str
    dimension: int
    digest: str
    max_tokens: int | None
    longest_sentence_tokens: int
    one_sentence_ms: float
    texts_per_second: float


def fetchable_models(config: TextConfig) -> list[FetchableModel]:
    return [
        FetchableModel(listed.name, listed.dimension, listed.size_mb, _is_here(listed, config))
        for listed in listed_models()
    ]


def fetch_model(config: TextConfig, model: str | None = None) -> FastEmbedEncoder:
    """Download a model, by default that of the config, and load it.

    Raises `ConfigurationError` if no hub has it, or the hub does not answer.
    """
    config = structs.replace(config, model=model or config.model, model_path=None)
    listed = listed_model(config.model)
    if listed is None or listed.hub_name is None:
        raise ConfigurationError(
            f"no hub is known for {config.model}: choose one of `llm-trader models list`"
        )
    _download(listed, config)
    return FastEmbedEncoder.load(config)


def check_model(config: TextConfig) -> ModelCheck:
    """Load the model, and encode sentences of a simulated market like ingestion does."""
    encoder = FastEmbedEncoder.load(config)
    texts = _sample_sentences(config.form)
    encoder.encode(texts[:1])
    # The fastest of five, because other programs only ever make it slower.
    one_sentence_s = min(repeat(lambda: encoder.encode(texts[:1]), number=1, repeat=5))
    all_s = timeit(lambda: encoder.encode(texts), number=1)
    return ModelCheck(
        model=encoder.name,
        dimension=encoder.dimension,
        digest=encoder.digest,
        max_tokens=encoder.max_tokens,
        longest_sentence_tokens=max(encoder.token_counts(texts), default=0),
        one_sentence_ms=round(one_sentence_s * 1000, 1),
        texts_per_second=round(len(texts) / all_s, 1),
    )


def _download(listed: ListedModel, config: TextConfig) -> None:
    """Raises ConfigurationError within seconds if the hub does not answer."""
    hub: Any = import_module("huggingface_hub")
    failures: list[Exception] = []

    def ask_hub() -> None:
        try:
            hub.model_info(str(listed.hub_name), timeout=_HUB_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  reported below, in the main thread
            failures.append(error)

    # The look-up of a host name has no timeout, so it runs in a thread that may be left behind.
    thread = Thread(target=ask_hub, daemon=True)
    thread.start()
    thread.join(2 * _HUB_TIMEOUT_S)
    if thread.is_alive() or failures:
        raise _not_fetched(listed, failures[0] if failures else TimeoutError("no answer"))
    files = [*TOKENIZER, "config.json", "special_tokens_map.json", listed.model_file]
    try:
        hub.snapshot_download(
            str(listed.hub_name),
            cache_dir=_cache_folder(config),
            allow_patterns=[*files, *listed.additional_files],
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


def _is_here(listed: ListedModel, config: TextConfig) -> bool:
    if listed.hub_name is None:
        return False
    hub: Any = import_module("huggingface_hub")
    names, folder = (listed.model_file, *listed.additional_files), _cache_folder(config)
    look_up = partial(hub.try_to_load_from_cache, listed.hub_name, cache_dir=folder)
    return all(isinstance(look_up(name), str) for name in names)


def _cache_folder(config: TextConfig) -> Path:
    """The folder that FastEmbed chooses."""
    choices: Any = import_module("fastembed.common.utils")
    folder = config.cache_dir
    return Path(choices.define_cache_dir(None if folder is None else str(folder)))


def _sample_sentences(form: Form) -> list[str]:
    start_ms = parse_rfc3339("2025-01-01T00:00:00Z")
    market = simulate("BTCUSDT", start_ms=start_ms, days=30, seed=1)
    # The indicators of 4h candles need 20 days before the first sentence.
    as_of_ms = start_ms + 25 * DAY_MS + np.arange(_CHECKED_SENTENCES) * HOUR_MS
    return sentences(build_snapshots(market, as_of_ms), form)
