"""What both faces of the client are made with: a server, and how long and how often to try."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from llm_trader.client.endpoint import Endpoint
from llm_trader.client.retries import RetryPolicy

Pool = TypeVar("Pool")


class Face(ABC, Generic[Pool]):
    """`timeout_s` bounds a call with all its attempts; `connections` are open at the most."""

    def __init__(
        self,
        url: str = "tcp://127.0.0.1:7879",
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
        connections: int = 4,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._retries = retries or RetryPolicy()
        self._pool = self._pool_of(Endpoint.parse(url, token, tls), connections)

    @abstractmethod
    def _pool_of(self, endpoint: Endpoint, connections: int) -> Pool:
        """Connections to a server, none of which is open yet."""
