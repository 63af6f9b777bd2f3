"""Where a Qdrant index is, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class QdrantPlace:
    """A server and the name that is searched there: an alias of the newest version.

    `retry_s` is how long a call is tried again when the connection is lost, `timeout_s` what one
    try may take. `api_key_env` only names the key's variable in messages. What shapes a
    collection (`shard_number`, `replication_factor`, `quantization`) counts when one is made.
    """

    url: str
    grpc_port: int = 6334
    collection: str = "llm_trader"
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    ca_file: Path | None = None
    timeout_s: float = 5.0
    retry_s: float = 8.0
    pool_size: int = 3
    shard_number: int = 1
    replication_factor: int = 1
    approximate: bool = False
    hnsw_ef: int = 256
    quantization: Literal["none", "int8"] = "none"

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "localhost"

    @property
    def address(self) -> str:
        """Host and port of the gRPC service, for messages."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def shown_url(self) -> str:
        """The url without a user and password, should it carry them."""
        return shown(self.url)


def shown(url: str) -> str:
    """A url without a user and password, for messages."""
    return urlsplit(url)._replace(netloc=address_in(url)).geturl()


def address_in(url: str) -> str:
    """Host and port of a url, without a user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]
