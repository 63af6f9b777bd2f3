"""Where a server is: `tcp://host:port`, `tls://`, `http://host:port/rpc` or `https://`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from llm_trader.errors import InvalidInputError
from llm_trader.rpc.conversation import Codec, HttpPosts, Lines

_PORTS: Final = {"tcp": 7879, "tls": 7879, "http": 7880, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """`token` is sent on each connection, or over HTTP with each request."""

    host: str
    port: int
    path: str | None = None  # None is TCP
    tls: ssl.SSLContext | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, url: str, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> Endpoint:
        """Raises `InvalidInputError`."""
        parts = urlsplit(url)
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (KeyError, ValueError):
            port = 0
        if not port or not parts.hostname:
            raise InvalidInputError(
                f"{url!r} is not the address of a server; write it as tcp://127.0.0.1:7879 or "
                "http://127.0.0.1:7880"
            )
        path = None
        if parts.scheme.startswith("http"):
            path = parts.path if parts.path.strip("/") else "/rpc"
        if parts.scheme in ("tls", "https"):
            tls = tls or ssl.create_default_context()
        return cls(parts.hostname, port, path, tls, token)

    def codec(self) -> Codec:
        if self.path is None:
            return Lines()
        host = f"[{self.host}]" if ":" in self.host else self.host
        return HttpPosts(f"{host}:{self.port}", self.path, self.token)

    @property
    def token_of_connection(self) -> str | None:
        """What `rpc.authenticate` is called with at the start."""
        return self.token if self.path is None else None
