"""The archive of Binance as a real HTTP server, with files of a simulated market."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.months import Period, days, months
from llm_trader.market.simulation import simulate
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, parse_time

ROOT = "/data/futures/um/"
START_MS: Millis = parse_time("2024-11-24")
END_MS: Millis = parse_time("2025-01-08")
MICROSECONDS_FROM_MS: Millis = parse_time("2025-01-01")
SYMBOL = "BTCUSDT"
STARTS_FROM_MS: Millis = parse_time("2026-06-25")

_KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
_METRICS_HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,"
    "count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,"
    "count_long_short_ratio,sum_taker_long_short_vol_ratio"
)


def market() -> MarketHistory:
    return simulate(SYMBOL, start_ms=START_MS, days=(END_MS - START_MS) // DAY_MS, seed=11)


def zipped(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # The default time of a member is that of the clock.
        archive.writestr(zipfile.ZipInfo(name.replace(".zip", ".csv")), text)
    return buffer.getvalue()


def kline_text(candles: CandleSeries, *, header: bool, microseconds: bool) -> str:
    factor = 1000 if microseconds else 1
    lines = [_KLINE_HEADER] if header else []
    for i, open_ms in enumerate(candles.open_time_ms.tolist()):
        o, h, low, c, v = (float(values[i]) for _, values in candles.columns())
        close_ms = open_ms + candles.timeframe.ms - 1
        lines.append(
            f"{open_ms * factor},{o!r},{h!r},{low!r},{c!r},{v!r},{close_ms * factor},1,1,1,1,0"
        )
    return "\n".join(lines) + "\n"


def metrics_lines(history: MarketHistory, day: Period) -> list[str]:
    """A row each five minutes, with the simulation's open interest of that hour.

    Its times are the ends of the five minutes; from 2026-06-25 on, their starts.
    """
    lines = [_METRICS_HEADER]
    late_ms = 0 if day.start_ms >= STARTS_FROM_MS else 5 * MINUTE_MS
    for time_ms in range(day.start_ms + late_ms, day.end_ms + late_ms, 5 * MINUTE_MS):
        row = int(np.searchsorted(history.open_interest.time_ms, time_ms, side="right")) - 1
        interest = float(history.open_interest.open_interest[max(row, 0)])
        moment = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{moment},{SYMBOL},{interest!r},{interest * 2!r},1,1,1,1")
    return lines


def tree(history: MarketHistory) -> dict[str, bytes]:
    """The files of the archive by path, in both styles of headers and both units of time."""
    files: dict[str, bytes] = {}
    for candles in (history.intraday, history.four_hour):
        timeframe = candles.timeframe
        for month in months(START_MS, END_MS):
            for length, periods in (
                ("monthly", [month]),
                ("daily", list(days(max(month.start_ms, START_MS), min(month.end_ms, END_MS)))),
            ):
                for period in periods:
                    name = f"{SYMBOL}-{timeframe}-{period.name}.zip"
                    text = kline_text(
                        candles.between(period.start_ms, period.end_ms),
                        header=period.start_ms >= parse_time("2024-12-01"),
                        microseconds=period.start_ms >= MICROSECONDS_FROM_MS,
                    )
                    files[f"{length}/klines/{SYMBOL}/{timeframe}/{name}"] = zipped(name, text)
    for month in months(START_MS, END_MS):
        name = f"{SYMBOL}-fundingRate-{month.name}.zip"
        part = history.funding.between(month.start_ms, month.end_ms)
        rows = zip(part.time_ms.tolist(), part.interval_hours, part.rate, strict=True)
        lines = [f"{t},{h:g},{float(r)!r}" for t, h, r in rows]
        text = "\n".join(["calc_time,funding_interval_hours,last_funding_rate", *lines]) + "\n"
        files[f"monthly/fundingRate/{SYMBOL}/{name}"] = zipped(name, text)
    for day in days(START_MS, END_MS):
        name = f"{SYMBOL}-metrics-{day.name}.zip"
        text = "\n".join(metrics_lines(history, day)) + "\n"
        files[f"daily/metrics/{SYMBOL}/{name}"] = zipped(name, text)
    return files


class ArchiveServer:
    """Serves `files`; `answers` may answer a path in another way, once per entry.

    `requests` counts requests by path, `bodies` those of them that got the file itself.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.checksums: dict[str, str] = {}  # other than those of the files
        self.answers: dict[str, list[Callable[[BaseHTTPRequestHandler], None]]] = {}
        self.requests: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.delay_seconds = 0.0
        self.url = ""
        self._lock = threading.Lock()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix(ROOT)
        with self._lock:
            self.requests[path] += 1
            self.times.setdefault(path, []).append(time.monotonic())
            special = self.answers.get(path)
            answer = special.pop(0) if special else None
        time.sleep(self.delay_seconds)
        if answer is not None:
            answer(request)
            return
        file = path.removesuffix(".CHECKSUM")
        content = self.files.get(file)
        if content is None or not request.path.startswith(ROOT):
            reply(request, 404)
        elif path != file:
            digest = self.checksums.get(file) or sha256(content).hexdigest()
            reply(request, 200, f"{digest}  {file.rpartition('/')[2]}\n".encode())
        else:
            etag = f'"{sha256(content).hexdigest()[:16]}"'
            if request.headers.get("If-None-Match") == etag:
                reply(request, 304)
                return
            with self._lock:
                self.bodies[path] += 1
            reply(request, 200, content, ETag=etag)


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def busy(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: reply(request, status, **headers)


def cut_off(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """The first half of a body whose whole length was promised."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])

    return answer


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[ArchiveServer]:
    archive = ArchiveServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            archive.handle(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    archive.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
