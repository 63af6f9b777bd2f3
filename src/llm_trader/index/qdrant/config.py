"""Address, limits and layout of a Qdrant server."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, Folder, Url


class QdrantConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Qdrant server or cluster as the index, instead of the embedded one."""

    url: Annotated[
        Annotated[Url, Meta(pattern=r"^https?://[^/\s]+$")] | None,
        Meta(
            description="Address of the server; https for TLS. Without one the embedded index is "
            "used.",
            examples=["http://localhost:6333"],
        ),
    ] = None
    grpc_port: Annotated[int, Meta(ge=1, le=65535, description="Port of its gRPC service.")] = 6334
    collection: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{1,100}$",
            description="Name that is searched: an alias of the newest of its versions.",
        ),
    ] = "llm_trader"
    api_key_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds the API key or JWT.",
            examples=["QDRANT_API_KEY"],
        ),
    ] = None
    ca_file: Annotated[
        Folder | None,
        Meta(
            description="PEM file of the authority that signed the server's certificate, where "
            "the system does not know it.",
            examples=["/etc/ssl/qdrant-ca.pem"],
        ),
    ] = None
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds that one call to the server may take.")
    ] = 5.0
    retry_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="Seconds for which a call is repeated, with backoff, when the connection "
            "is lost; keep it below serving.request_deadline_s.",
        ),
    ] = 8.0
    pool_size: Annotated[
        int, Meta(ge=1, le=64, description="Number of connections kept open to the server.")
    ] = 3
    shard_number: Annotated[
        int, Meta(ge=1, le=256, description="Number of shards of a new collection.")
    ] = 1
    replication_factor: Annotated[
        int, Meta(ge=1, le=16, description="Number of copies of each shard of a new collection.")
    ] = 1
    approximate: Annotated[
        bool,
        Meta(
            description="Search the graph instead of comparing with every point: faster beyond "
            "some hundred thousand points a symbol, and not exact; see `llm-trader index recall`."
        ),
    ] = False
    hnsw_ef: Annotated[
        int,
        Meta(
            ge=16,
            le=4096,
            description="Breadth of an approximate search; more is slower and nearer to exact.",
        ),
    ] = 256
    quantization: Annotated[
        Literal["none", "int8"],
        Meta(description="int8 also keeps the vectors of a new collection as bytes in memory."),
    ] = "none"
    node_urls: Annotated[
        tuple[Url, ...],
        Meta(
            description="REST addresses of all nodes of a cluster, for backups; by default that "
            "of url.",
            examples=[["http://node-1:6333", "http://node-2:6333"]],
        ),
    ] = ()


class QdrantServer(QdrantConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that can be called: its address is known, and its key beside the config."""

    url: str
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"QdrantServer({self.shown_url!r}, collection={self.collection!r})"

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
