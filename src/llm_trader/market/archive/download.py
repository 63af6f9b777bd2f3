"""Fetches files of the archive and verifies them.

A verified file lies in a folder beside the store until its rows are stored, so a killed run fetches
nothing twice. Threads share one client: when the archive asks to wait, all of them do.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

from llm_trader.errors import ArchiveError
from llm_trader.market.archive.checksum import parse_checksum
from llm_trader.market.archive.config import ArchiveConfig
from llm_trader.market.archive.plan import ArchiveFile, ArchiveRecord
from llm_trader.storage.files import write_all_atomically, write_errors

ROOT: Final = "data/futures/um/"
_ATTEMPTS: Final = 5
_FIRST_WAIT_SECONDS: Final = 0.5
# Binance bans an address for minutes; who is banned for longer should not wait in a terminal.
_LONGEST_WAIT_SECONDS: Final = 600.0
_BUSY: Final = (408, 418, 425, 429, 500, 502, 503, 504)
_NOT_THERE: Final = (404, 410)


class Proof(msgspec.Struct, frozen=True):
    """Of a verified file: its checksum, and what asks whether it has changed since."""

    sha256: str
    etag: str | None
    last_modified: str | None


class Fetched(NamedTuple):
    path: Path
    proof: Proof


class Unchanged(NamedTuple):
    """The file is still the one that was asked about."""


class NotPublished(NamedTuple):
    """The archive has no such file."""


class Failed(NamedTuple):
    """The archive answers, but the file cannot be had as its checksum says."""

    reason: str
    may_pass: bool = False  # as a file and its checksum are not replaced at the same moment


Outcome: TypeAlias = Fetched | Unchanged | NotPublished | Failed


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Downloads:
    """The folder of verified files that wait for their import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob("*.part"):  # of a killed run
                part.unlink(missing_ok=True)

    def waiting(self, file: ArchiveFile) -> Fetched | None:
        path = self.folder / file.name
        try:
            proof = msgspec.json.decode(self._proof_path(path).read_bytes(), type=Proof)
        except (OSError, msgspec.MsgspecError):
            return None
        return Fetched(path, proof) if path.exists() else None

    def keep(self, file: ArchiveFile, content: bytes, proof: Proof) -> Fetched:
        path = self.folder / file.name
        encoded = msgspec.json.encode(proof)

        def write_proof(part: Path) -> None:
            part.write_bytes(encoded)

        def write_content(part: Path) -> None:
            part.write_bytes(content)

        # The proof takes its place first: a file that is there is one that was verified.
        writers = {self._proof_path(path).name: write_proof, path.name: write_content}
        with write_errors(self.folder):
            path.unlink(missing_ok=True)
            write_all_atomically(self.folder, writers)
        return Fetched(path, proof)

    def remove(self, fetched: Fetched) -> None:
        fetched.path.unlink(missing_ok=True)
        self._proof_path(fetched.path).unlink(missing_ok=True)

    @staticmethod
    def _proof_path(path: Path) -> Path:
        return path.with_name(f"{path.name}.json")


class ArchiveClient:
    """Used by any number of threads. `stop` ends all waiting.

    Raises `ArchiveError` when the archive cannot be reached or goes on being busy.
    """

    def __init__(self, config: ArchiveConfig, downloads: Downloads) -> None:
        self._config, self._downloads = config, downloads
        self._host = urlsplit(config.url).netloc
        self._stopped = threading.Event()
        self._not_before = 0.0  # by the monotonic clock
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._stopped.set()

    def fetch(self, file: ArchiveFile, record: ArchiveRecord | None = None) -> Outcome:
        """Fetch a file and verify it; with the record of it, only where it has changed."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            self._wait(self._backoff(file.path, attempt) if attempt else 0.0)
            outcome = self._fetch_once(file, record)
            if not (isinstance(outcome, Failed) and outcome.may_pass):
                return outcome
            reason = outcome.reason
        return Failed(reason)

    def _fetch_once(self, file: ArchiveFile, record: ArchiveRecord | None) -> Outcome:
        conditions = _conditions(record)
        # A file that may be unchanged is asked for first, any other once its checksum is known.
        reply = self._get(file.path, conditions) if conditions else None
        if reply is not None and reply.status == 304:
            return Unchanged()
        if reply is not None and reply.status in _NOT_THERE:
            return NotPublished()
        published = self._get(f"{file.path}.CHECKSUM", {})
        if published.status in _NOT_THERE:
            return NotPublished()
        if published.status != 200:
            return Failed(f"its checksum: the archive answers {published.status}")
        expected = parse_checksum(published.body.decode("utf-8", "replace"), file.name)
        if expected is None:
            return Failed("its .CHECKSUM is not a SHA-256 of this file")
        if reply is None:
            reply = self._get(file.path, {})
        if reply.status in _NOT_THERE:
            return NotPublished()
        if reply.status != 200:
            return Failed(f"the archive answers {reply.status}")
        actual = sha256(reply.body).hexdigest()
        if actual != expected:
            return Failed(
                f"its {len(reply.body)} bytes have the checksum {actual[:12]}…, and the archive "
                f"publishes {expected[:12]}…",
                may_pass=True,
            )
        if record is not None and record.sha256 == actual:
            return Unchanged()
        proof = Proof(actual, reply.headers.get("etag"), reply.headers.get("last-modified"))
        return self._downloads.keep(file, reply.body, proof)

    def _get(self, path: str, conditions: Mapping[str, str]) -> _Reply:
        url = f"{self._config.url.rstrip('/')}/{ROOT}{path}"
        problem = ""
        for attempt in range(_ATTEMPTS):
            self._wait(self._backoff(path, attempt) if attempt else 0.0)
            try:
                reply = self._ask(url, conditions)
            except (OSError, http.client.HTTPException) as error:
                problem = f"cannot be reached ({_reason(error)})"
                continue
            if reply.status not in _BUSY:
                return reply
            problem = f"answers {reply.status} {http.client.responses.get(reply.status, '')}"
            self._hold_back(_retry_after_seconds(reply.headers), problem)
        raise ArchiveError(
            f"the archive at {self._host} {problem.strip()}; check the network and the setting "
            "market.archive.url, or run the command again later: it goes on where it stopped",
            host=self._host,
        )

    def _ask(self, url: str, conditions: Mapping[str, str]) -> _Reply:
        headers = {"User-Agent": "llm-trader", **conditions}
        # The setting admits only http and https.
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=self._config.timeout_seconds
            ) as response:
                return _Reply(response.status, _small(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _Reply(error.code, _small(error.headers), b"")

    def _hold_back(self, seconds: float, problem: str) -> None:
        if seconds > _LONGEST_WAIT_SECONDS:
            raise ArchiveError(
                f"the archive at {self._host} {problem.strip()} and asks to come back in "
                f"{seconds:.0f} seconds; run the command again then: it goes on where it stopped",
                host=self._host,
                retry_after_seconds=seconds,
            )
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                left = max(until, self._not_before) - time.monotonic()
            if self._stopped.is_set():
                raise ArchiveError("stopped")
            if left <= 0:
                return
            self._stopped.wait(left)

    @staticmethod
    def _backoff(path: str, attempt: int) -> float:
        # Threads that failed together should not come back together.
        jitter = random.Random(f"{path} {attempt}").uniform(0.5, 1.0)
        return float(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1) * jitter)


def _conditions(record: ArchiveRecord | None) -> dict[str, str]:
    if record is None:
        return {}
    pairs = (("If-None-Match", record.etag), ("If-Modified-Since", record.last_modified))
    return {name: value for name, value in pairs if value is not None}


def _small(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    """How long to wait as the reply says, in seconds or until a time; 0 where it does not."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        # Compared with the clock of the archive.
        now = parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__
