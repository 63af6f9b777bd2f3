"""Audit logs of made-up requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.audit.config import AuditConfig
from llm_trader.audit.log import AUDIT, AuditLog
from llm_trader.rpc.observer import RequestRecord
from llm_trader.storage.chain import verification
from llm_trader.storage.chain.verification import ChainsReport

NOW_MS = 1_780_000_000_000
# What one file holds in these tests: about 20 lines.
SMALL_BYTES = 8000


def request(number: int = 0, **changes: Any) -> RequestRecord:
    fields = {
        "request_id": f"a-{number:x}",
        "peer": "127.0.0.1:5000",
        "method": "rag.stats",
        "code": None,
        "stages": {},
        "duration_s": 0.001,
        "request_bytes": 100,
        "reply_bytes": 200,
        "notification": False,
        "batch_position": None,
        "key_id": "k1",
    }
    return RequestRecord(**(fields | changes))


@contextmanager
def writing(folder: Path, *, keep_files: int = 0) -> Iterator[AuditLog]:
    config = AuditConfig(keep_files=keep_files)
    log = AuditLog(folder, ["rag.stats"], now_ms=lambda: NOW_MS, config=config)
    log._chain._max_bytes = SMALL_BYTES  # a real limit is at least a MiB
    try:
        yield log
    finally:
        log.close()


def write(folder: Path, count: int, **settings: Any) -> None:
    with writing(folder, **settings) as log:
        for number in range(count):
            log(request(number))


def verify(folder: Path, expected: tuple[str, ...] = ()) -> ChainsReport:
    return verification.verify(AUDIT, folder, expected)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def events(folder: Path) -> list[str]:
    return [msgspec.json.decode(raw)["event"] for path in files(folder) for raw in lines(path)]
