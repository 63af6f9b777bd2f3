"""Writes the audit log: an observer of requests, which writes each line before the reply is sent.

A write that fails loses the line and stops no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from llm_trader.audit.config import AuditConfig
from llm_trader.rpc.observer import RequestRecord
from llm_trader.storage.chain.lines import ChainKind, ChainLine
from llm_trader.storage.chain.writer import ChainWriter
from llm_trader.timeframe import Millis


class AuditLine(ChainLine, omit_defaults=True, kw_only=True):
    event: Literal["request", "opened", "gap", "closed"]
    request_id: str | None = None
    peer: str | None = None
    key_id: str | None = None
    method: str | None = None
    code: int | None = None
    duration_us: int | None = None
    request_bytes: int | None = None
    reply_bytes: int | None = None
    notification: bool = False
    batch_position: int | None = None


AUDIT: Final = ChainKind("audit", AuditLine, words="audit log", setting="audit.folder")


class AuditLog:
    """Open until `close`. `methods` are the names that a line may show; others came from a client.

    `lost` counts the requests whose line could not be written.
    """

    def __init__(
        self,
        folder: Path,
        methods: Iterable[str],
        *,
        now_ms: Callable[[], Millis],
        config: AuditConfig | None = None,
    ) -> None:
        self._methods = frozenset(methods)
        self._chain = ChainWriter(
            AUDIT,
            folder,
            config or AuditConfig(),
            now_ms=now_ms,
            effect="requests are answered without a line; the next line has their number",
        )
        self.close = self._chain.close

    @property
    def lost(self) -> int:
        return self._chain.lost

    def __call__(self, record: RequestRecord) -> None:
        method = record.method
        self._chain.write(
            "request",
            request_id=record.request_id,
            peer=record.peer,
            key_id=record.key_id,
            method=method if method is None or method in self._methods else "unknown",
            code=record.code,
            duration_us=round(record.duration_s * 1e6),
            request_bytes=record.request_bytes,
            reply_bytes=record.reply_bytes,
            notification=record.notification,
            batch_position=record.batch_position,
        )
