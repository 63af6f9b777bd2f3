"""Settings of the text model and of the vector cache that servers share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, Folder, Url
from llm_trader.snapshot.document import Form


class TextConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text vectors: the state as a sentence, embedded by a transformer. Needs the extra `text`."""

    enabled: Annotated[
        bool,
        Meta(description="Make and use text vectors; on if retrieval.vector is text or hybrid."),
    ] = False
    model: Annotated[
        str, Meta(min_length=1, description="A model of FastEmbed; see `llm-trader models list`.")
    ] = "BAAI/bge-small-en-v1.5"
    model_path: Annotated[
        Folder | None,
        Meta(
            description="Folder of an ONNX model with its tokenizer, used instead of the cache.",
            examples=["/srv/models/bge-small-en-v1.5"],
        ),
    ] = None
    cache_dir: Annotated[
        Folder | None,
        Meta(
            description="Folder that `llm-trader models pull` fills; FastEmbed's own by default.",
            examples=["var/models"],
        ),
    ] = None
    form: Annotated[Form, Meta(description="Form of the sentence.")] = "detailed"
    threads: Annotated[
        int, Meta(ge=1, le=64, description="Number of batches that are embedded at once.")
    ] = 2
    batch_size: Annotated[
        int, Meta(ge=1, le=1024, description="Number of sentences in a batch at ingestion.")
    ] = 8
    cache_size: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Number of sentences whose vectors a process keeps."),
    ] = 4096


class EmbeddingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How vectors are made."""

    text: TextConfig = TextConfig()


class VectorCacheConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text vectors shared between servers. Needs the extra `redis`."""

    redis_url: Annotated[
        Annotated[Url, Meta(pattern=r"^(rediss?|unix)://\S+$")] | None,
        Meta(
            description="Address of a Redis; without one each process keeps its own vectors.",
            examples=["redis://localhost:6379/0"],
        ),
    ] = None
    redis_password_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds its password.",
            examples=["REDIS_PASSWORD"],
        ),
    ] = None
    redis_timeout_ms: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Milliseconds after which a lookup counts as a miss."),
    ] = 50
    ttl_hours: Annotated[
        int, Meta(ge=1, le=8760, description="Hours that a vector is kept there.")
    ] = 168
