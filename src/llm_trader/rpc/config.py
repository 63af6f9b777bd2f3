"""Settings of the JSON-RPC server: its address, its keys and its limits."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, FilePath, NotASetting, Url
from llm_trader.errors import ConfigurationError

_MAY_BE_ZERO: Final = ("port", "http_port", "rate_limit_per_s", "work_limit_ms_per_s")
_LAST_PORT: Final = 65535


class RpcConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON-RPC 2.0 over TCP and HTTP."""

    host: Annotated[
        str, Meta(min_length=1, description="Address or host name that the server listens on.")
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(ge=0, le=65535, description="TCP port that the server listens on; 0 takes any free."),
    ] = 7879
    http: Annotated[
        bool, Meta(description="Also answer over HTTP and WebSocket, on a port of its own.")
    ] = True
    http_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(
            description="TCP port for HTTP; 0 takes any free. Without it, the port after "
            "serving.port, so 7880.",
            examples=[7880],
        ),
    ] = None
    http_allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Host names by which clients may call the HTTP port, beside those of this "
            "machine's loopback and the address that the client connected to. Others are refused, "
            "so that no web page reaches the server by a name of its own.",
            examples=[["rag.example"]],
        ),
    ] = ()
    http_allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins of web pages that may call the HTTP port from a browser, such as "
            "https://desk.example. Pages of other origins are refused.",
            examples=[["https://desk.example"]],
        ),
    ] = ()
    allow_unauthenticated_remote: Annotated[
        bool, Meta(description="Serve other machines even though no key is asked for.")
    ] = False
    keys_file: Annotated[
        FilePath | None,
        Meta(
            description="File of the API keys that `llm-trader keys` makes; a running server "
            "follows its changes. Without it, and without auth_tokens_env, no key is asked for.",
            examples=["var/keys.json"],
        ),
    ] = None
    auth_tokens_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds accepted tokens, separated "
            "by commas: keys with every scope and no end.",
            examples=["LLM_TRADER_TOKENS"],
        ),
    ] = None
    tls_certificate: Annotated[
        FilePath | None,
        Meta(
            description="PEM file of the server's certificate, with those between it and its "
            "authority; with it the server speaks TLS on all ports. A changed file is taken up "
            "without a restart. For a client, the certificate that the server must have.",
            examples=["var/server.pem"],
        ),
    ] = None
    tls_key: Annotated[
        FilePath | None,
        Meta(
            description="PEM file of the certificate's key; without it the key is in the file of "
            "the certificate.",
            examples=["var/server.key"],
        ),
    ] = None
    tls_client_ca: Annotated[
        FilePath | None,
        Meta(
            description="PEM file of the authority that must have signed the certificates of "
            "clients; without it clients need none.",
            examples=["var/clients.pem"],
        ),
    ] = None
    max_frame_kib: Annotated[
        int, Meta(ge=1, le=65536, description="Size limit of one request, KiB.")
    ] = 1024
    max_received_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="Largest memory of all requests that are not answered yet, MiB; beyond "
            "it, clients that send large ones are refused as overloaded.",
        ),
    ] = 32
    frame_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="Seconds from the first byte of a request to its last."),
    ] = 30.0
    idle_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86400,
            description="Seconds a connection may stay silent while no request is under way.",
        ),
    ] = 600.0
    write_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Seconds without reading any of its replies after which a client is cut "
            "off.",
        ),
    ] = 30.0
    max_unsent_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="Largest memory of all replies that clients have not read yet, MiB; "
            "beyond it, the client that has read nothing for the longest time is cut off.",
        ),
    ] = 32
    max_batch_reply_kib: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="Size at which the reply to one batch is full, KiB; the calls that are "
            "left are refused as overloaded.",
        ),
    ] = 32768
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Greatest number of open connections; fewer if the process may not open "
            "so many files.",
        ),
    ] = 1000
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Greatest number of open connections from one address; clients behind one "
            "proxy have one address.",
        ),
    ] = 500
    max_unauthenticated_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Greatest number of connections without a key, where one is asked for; "
            "beyond it the oldest of them is closed.",
        ),
    ] = 100
    authentication_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Seconds in which a connection must send its key, where one is asked for.",
        ),
    ] = 10.0
    max_in_flight: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Greatest number of requests at work at once, in all; those that wait for "
            "their turn are not at work.",
        ),
    ] = 256
    max_in_flight_per_connection: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Greatest number of requests at work at once, per connection.",
        ),
    ] = 32
    request_deadline_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="Seconds after which the server gives up on a request; one that would "
            "not have its turn by then is refused as overloaded.",
        ),
    ] = 10.0
    rate_limit_per_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests a second that one client may send; a client is a key, or an "
            "address where no key was sent. 0 sets no limit.",
        ),
    ] = 0.0
    rate_burst: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="Requests that a client may send at once after a rest."
        ),
    ] = 20
    work_limit_ms_per_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Milliseconds a second that the server works for one client; long "
            "lookbacks take more of them than short ones. 0 sets no limit.",
        ),
    ] = 0.0
    work_burst_ms: Annotated[
        float,
        Meta(
            ge=1,
            le=1_000_000,
            description="Milliseconds of work that a client may use at once after a rest.",
        ),
    ] = 2000.0
    limits_redis_url: Annotated[
        Annotated[Url, Meta(pattern=r"^(rediss?|unix)://\S+$")] | None,
        Meta(
            description="Address of a Redis in which servers share these two limits; without one "
            "each process has its own. Needs the extra `redis`.",
            examples=["redis://localhost:6379/1"],
        ),
    ] = None
    limits_redis_password_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds its password.",
            examples=["REDIS_PASSWORD"],
        ),
    ] = None
    limits_redis_timeout_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Milliseconds to wait for that Redis; after them, this process applies "
            "limits of its own.",
        ),
    ] = 250
    drain_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1, le=600, description="Seconds that running requests get to finish at shutdown."
        ),
    ] = 20.0
    discard_s: Annotated[float, NotASetting] = 1.0

    @property
    def port_for_http(self) -> int:
        if self.http_port is not None:
            return self.http_port
        return self.port and self.port + 1

    def __post_init__(self) -> None:
        if self.http and self.port_for_http > _LAST_PORT:
            raise ConfigurationError(
                f"port {self.port} is the last one, so none follows for HTTP; name one with "
                "--http-port, or leave it out with --no-http"
            )
        if self.http and self.port and self.port_for_http == self.port:
            raise ConfigurationError(
                f"port {self.port} cannot serve both lines of JSON and HTTP; give http_port another"
            )
        for name in RpcConfig.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or name in _MAY_BE_ZERO:
                continue
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"{name} must be above zero, not {value}")
