"""`llm-trader data import` of files as people have them: what is read, told, left out, refused."""

from __future__ import annotations

import gzip
import shlex
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from llm_trader.cli import options
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import HOUR_MS, M5, parse_rfc3339
from tests.cli.conftest import Typed, Typing

START_MS = parse_rfc3339("2026-01-01T00:00:00Z")
NOW_MS = parse_rfc3339("2026-04-01T00:00:00Z")
HEADER = "timestamp_ms,open,high,low,close,volume"
CLOSES = [100.5 + i for i in range(12)]
CANDLES = "--kind candles --interval 5m"
FUNDING = "--kind funding"
INTEREST = "--kind open_interest"


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: NOW_MS)


@pytest.fixture
def imported(typed: Typing, tmp_path: Path) -> Callable[..., Typed]:
    def run(path: Path, meaning: str, symbol: str = "BTCUSDT", more: str = "") -> Typed:
        line = f"llm-trader data import {path} --exchange binance --symbol {symbol} {meaning}"
        return typed(f"{line} {more} --store {tmp_path / 'store'}")

    return run


def stamped(
    stamp: Callable[[int], object] = str, count: int = 12, separator: str = ",", more: str = ""
) -> list[str]:
    """Rows of candles; `stamp` writes their times."""
    rows = []
    for i in range(count):
        cells = [stamp(START_MS + i * M5.ms), 100 + i, 101 + i, 99 + i, 100.5 + i, 5 + i]
        rows.append(separator.join(map(str, cells)) + more)
    return rows


def moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def with_time_name(name: str) -> str:
    return HEADER.replace("timestamp_ms", name)


ROWS = stamped()
BINANCE = [f"{row},{START_MS + (i + 1) * M5.ms - 1},1,1,1,1,0" for i, row in enumerate(ROWS)]
DOWNLOAD = [
    f"{START_MS + i * M5.ms},{moment(START_MS + i * M5.ms):%Y-%m-%d %H:%M:%S},BTCUSDT,"
    f"{100 + i},{101 + i},{99 + i},{100.5 + i},{5 + i},1,1"
    for i in reversed(range(12))
]
METRICS = "create_time,symbol,sum_open_interest,sum_open_interest_value"


def metrics(values: Sequence[str]) -> list[str]:
    return [f"2026-01-01 00:{5 * i:02}:00,BTCUSDT,{v}" for i, v in enumerate(values)]


def funding(hours: Sequence[float], rate: str = "0.0001") -> list[str]:
    return ["timestamp_ms,funding_rate", *(f"{START_MS + int(h * HOUR_MS)},{rate}" for h in hours)]


class Accepted(NamedTuple):
    lines: list[str]
    told: Sequence[str] = ()


WITHOUT_HEADER = "no header: column 1 is timestamp_ms, 2 is open, 3 is high, 4 is low, 5 is close"
NEWEST_FIRST = "newest first"
NAIVE = "times without an offset are taken as UTC"
ACCEPTED = {
    "Binance without a header": Accepted(BINANCE, [WITHOUT_HEADER]),
    "six columns without a header": Accepted(ROWS, [WITHOUT_HEADER]),
    "Kraken without a header": Accepted(
        stamped(lambda t: t // 1000, more=",3"), [WITHOUT_HEADER, "seconds"]
    ),
    "columns that pandas counted": Accepted(["0,1,2,3,4,5", *ROWS], [WITHOUT_HEADER]),
    "seconds": Accepted(
        [with_time_name("time"), *stamped(lambda t: t // 1000)], ["times are read as seconds"]
    ),
    "seconds as floats": Accepted(
        ["Timestamp,Open,High,Low,Close,Volume", *stamped(lambda t: f"{t // 1000}.0")], ["seconds"]
    ),
    "milliseconds as floats": Accepted([HEADER, *stamped(lambda t: repr(float(t)))]),
    "microseconds": Accepted([HEADER, *stamped(lambda t: t * 1000)], ["microseconds"]),
    "nanoseconds": Accepted([HEADER, *stamped(lambda t: t * 10**6)], ["nanoseconds"]),
    "milliseconds, then microseconds": Accepted(
        [HEADER, *ROWS[:6], *stamped(lambda t: t * 1000)[6:]], ["microseconds"]
    ),
    "newest first": Accepted([HEADER, *ROWS[::-1]], [NEWEST_FIRST]),
    "an address above the header": Accepted(
        [
            "https://www.example.com",
            "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount",
            *DOWNLOAD,
        ],
        [NEWEST_FIRST],
    ),
    "two lines above the header": Accepted(["# made by, say, us", "", HEADER, *ROWS]),
    "a row twice": Accepted([HEADER, *ROWS[:6], *ROWS[5:]], ["1 left out: duplicate row"]),
    "pages that overlap": Accepted([HEADER, *ROWS[:8], *ROWS[5:]], ["3 left out: duplicate row"]),
    "a row twice, newest first": Accepted(
        [HEADER, *ROWS[:5:-1], *ROWS[6::-1]], ["1 left out: duplicate row", NEWEST_FIRST]
    ),
    "a blank line at the end": Accepted([HEADER, *ROWS, ""], ["1 left out: blank line"]),
    "blank lines in between": Accepted(
        [HEADER, "", *ROWS[:3], "  ", *ROWS[3:], ",,,,,"], ["3 left out: blank line"]
    ),
    "files joined with their headers": Accepted(
        [HEADER, *ROWS[:6], HEADER, *ROWS[6:]], ["1 left out: header repeated"]
    ),
    "openTime": Accepted([with_time_name("openTime"), *ROWS]),
    "Open time": Accepted([with_time_name("Open time"), *ROWS]),
    "open_time": Accepted([with_time_name("open_time"), *ROWS]),
    "semicolons": Accepted([HEADER.replace(",", ";"), *stamped(separator=";")]),
    "tabs": Accepted([HEADER.replace(",", "\t"), *stamped(separator="\t")]),
    "decimal commas": Accepted(
        [HEADER.replace(",", ";"), *(r.replace(".", ",") for r in stamped(separator=";"))],
        ["commas are read as decimal points"],
    ),
    "quoted names": Accepted([",".join(f'"{n}"' for n in HEADER.split(",")), *ROWS]),
    "a separator at the end of rows": Accepted([HEADER, *(f"{row}," for row in ROWS)]),
    "Windows line ends": Accepted([f"{line}\r" for line in (HEADER, *ROWS)]),
    "a byte order mark": Accepted([f"\ufeff{HEADER}", *ROWS]),
    "naive times": Accepted(
        [HEADER, *stamped(lambda t: f"{moment(t):%Y-%m-%d %H:%M:%S}")], [NAIVE]
    ),
    "naive times with slashes": Accepted(
        [HEADER, *stamped(lambda t: f"{moment(t):%Y/%m/%d %H:%M}")], [NAIVE]
    ),
    "times with the word UTC": Accepted(
        [HEADER, *stamped(lambda t: f"{moment(t):%Y-%m-%d %H:%M:%S} UTC")]
    ),
    "the index of a pandas frame": Accepted(
        [with_time_name(""), *stamped(lambda t: moment(t).isoformat(sep=" "))]
    ),
    "a symbol column of ccxt": Accepted(
        [f"symbol,{HEADER}", *(f"BTC/USDT:USDT,{row}" for row in ROWS)]
    ),
    "a symbol column of OKX": Accepted(
        [f"instId,{HEADER}", *(f"BTC-USDT-SWAP,{row}" for row in ROWS)]
    ),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_candles_of_many_layouts_are_the_same_twelve(
    imported: Callable[..., Typed], tmp_path: Path, kind: str
) -> None:
    accepted = ACCEPTED[kind]
    path = tmp_path / "export.csv"
    path.write_bytes("\n".join([*accepted.lines, ""]).encode())

    shown = imported(path, CANDLES)

    assert shown.code == 0, shown.err
    for told in accepted.told:
        assert told in shown.out
    if not accepted.told:
        assert "export.csv:" not in shown.out, "nothing special, so nothing to tell"
    assert_twelve(tmp_path / "store")


def assert_twelve(folder: Path) -> None:
    with MarketStore.open(folder) as store:
        candles = store.candles("BTCUSDT", M5)
    assert candles.open_time_ms.tolist() == [START_MS + i * M5.ms for i in range(12)]
    assert candles.close.tolist() == CLOSES
    assert candles.high.tolist() == [close + 0.5 for close in CLOSES]
    assert candles.volume.tolist() == [5 + i for i in range(12)]


@pytest.mark.parametrize("name", ["day.zip", "c.csv.gz", "c.TXT", "[1]*.feather", "[1]*.parquet"])
def test_archives_and_feather_are_read(
    imported: Callable[..., Typed], tmp_path: Path, name: str
) -> None:
    path, text = tmp_path / name, "\n".join([HEADER, *ROWS])
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("BTCUSDT-5m-2026-01-01.csv", text)
            archive.writestr("__MACOSX/._BTCUSDT-5m-2026-01-01.csv", "junk")
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith("TXT"):
        path.write_text(text)
    else:
        frame = pl.read_csv(text.encode())
        (frame.write_ipc if name.endswith("feather") else frame.write_parquet)(path)

    assert imported(Path(shlex.quote(str(path))), CANDLES).code == 0
    assert_twelve(tmp_path / "store")


class Refused(NamedTuple):
    lines: list[str]
    told: Sequence[str]
    meaning: str = CANDLES
    symbol: str = "BTCUSDT"
    more: str = ""


def changed(row: int, old: str, new: str) -> list[str]:
    assert old in ROWS[row]
    return [HEADER, *ROWS[:row], ROWS[row].replace(old, new), *ROWS[row + 1 :]]


LINE_9 = "line 9, 2026-01-01T00:35:00Z"
REFUSED = {
    "a cell that is no number": Refused(
        changed(7, "107.5", "n/a"),
        [f"refused, 1 × close not a number ({LINE_9}, column close: 'n/a')", "import again"],
    ),
    "a row that is bad throughout is one": Refused(
        changed(7, "107,108,106,107.5,12", "x,x,x,x,x"), [f"1 × open not a number ({LINE_9}"]
    ),
    "a bad cell without a header": Refused(
        changed(7, "107.5", "n/a")[1:], ["1 × close not a number (line 8, 2026-01-01T00:35:00Z"]
    ),
    "the first row": Refused(
        changed(0, "100.5", "n/a"), ["1 × close not a number (line 2, 2026-01-01T00:00:00Z"]
    ),
    "a missing price": Refused(
        changed(7, "107.5", ""), [f"1 × price not finite ({LINE_9}: open 107", "close missing"]
    ),
    "high below low": Refused(changed(7, "108", "1"), [f"1 × high below low ({LINE_9}", "high 1,"]),
    "a row that was cut off": Refused(
        [HEADER, *ROWS[:11], ROWS[11][:20]], ["line 13, 2026-01-01T00:55:00Z", "close missing"]
    ),
    "a row with more cells": Refused(
        changed(7, "107.5", "107,5"), ["1 × more cells than the 6 columns (line 9, which has 7"]
    ),
    "two rows of one time": Refused(
        [HEADER, *ROWS[:8], ROWS[7].replace("107.5", "107.6"), *ROWS[8:]],
        [
            "1 × duplicate time with other values",
            "line 9 and line 10, 2026-01-01T00:35:00Z: close 107.5 and 107.6",
            "remove the wrong one",
        ],
    ),
    "no order": Refused(
        [HEADER, *ROWS[6:], *ROWS[:6]],
        ["1 × not in time order (line 8, 2026-01-01T00:00:00Z", "sort the file by time"],
    ),
    "thousands": Refused(
        [HEADER.replace(",", ";"), f"{START_MS};1,100;1,101;1,099;1,100;5"],
        ["1 × open not a number (line 2", "'1,100'", "without commas in thousands"],
    ),
    "times in local words": Refused(
        [HEADER, *stamped(lambda t: f"{moment(t):%d.%m.%Y %H:%M}")],
        ["12 × time missing or not readable (line 2", "'01.01.2026 00:00'", "ISO 8601"],
    ),
    "the year 2262": Refused(
        [HEADER, *stamped(lambda t: t + 9214646400000 - START_MS)],
        ["12 × time later than now, 2026-04-01T00:00:00Z (line 2, 2262-01-01T00:00:00Z"],
    ),
    "a candle of the next minute": Refused(
        [HEADER, f"{NOW_MS},1,1,1,1,1", f"{NOW_MS + M5.ms},1,1,1,1,1"],
        ["1 × time later than now", "line 3, 2026-04-01T00:05:00Z"],
    ),
    "funding of the future": Refused(
        ["time,rate", f"{NOW_MS - 8 * HOUR_MS},0.0001", f"{NOW_MS + 8 * HOUR_MS},0.0001"],
        ["1 × time later than now", "line 3, 2026-04-01T08:00:00Z"],
        FUNDING,
    ),
    "another symbol": Refused(
        [f"symbol,{HEADER}", *(f"BTCUSDT,{row}" for row in ROWS)],
        ["imported as ETHUSDT", "column symbol says 'BTCUSDT' in line 2"],
        symbol="ETHUSDT",
    ),
    "another quote currency": Refused(
        [f"Pair,{HEADER}", *(f"BTC/USD,{row}" for row in ROWS)],
        ["imported as BTCUSDT", "column Pair says 'BTC/USD' in line 2"],
    ),
    "two symbols": Refused(
        [
            f"symbol,{HEADER}",
            *(f"{'BTCUSDT' if i < 6 else 'ETHUSDT'},{row}" for i, row in enumerate(ROWS)),
        ],
        ["imported as BTCUSDT", "says 'ETHUSDT' in line 8, 2026-01-01T00:30:00Z", "split a file"],
    ),
    "columns in an unknown order": Refused(
        [",".join([c[0], c[1], c[4], c[2], c[3], c[5]]) for c in (r.split(",") for r in ROWS)],
        [f"has no header, and its columns (1: {START_MS}, 2: 100, 3: 100.5", "--map open=NUMBER"],
    ),
    "times of close": Refused(
        [HEADER, *stamped(lambda t: t + M5.ms)],
        ["begins with a candle at 2026-01-01T00:05:00Z", "--stamp close", "--stamp open"],
    ),
    "times of close to the millisecond": Refused(
        [HEADER, *stamped(lambda t: t + M5.ms - 1)], ["12 × open time off the 5m grid", "--stamp"]
    ),
    "times of close by name": Refused(
        [with_time_name("Close time"), *ROWS], ["--stamp close --map timestamp_ms=COLUMN"]
    ),
    "another interval": Refused(
        [HEADER, *ROWS],
        ["mostly 5m from the next, not 1h", "--interval 5m"],
        "--kind candles --interval 1h",
    ),
    "a confirmation in words": Refused(
        [f"{HEADER},confirm", *(f"{row},maybe" for row in ROWS)],
        ["12 × confirm neither 1 nor 0", "line 2", "'maybe'"],
    ),
    "nothing but candles in progress": Refused(
        [f"{HEADER},confirm", *(f"{row},0" for row in ROWS)], ["12 × candle not confirmed", "no"]
    ),
    "UTF-16": Refused(["\x00\udcff"], ["not UTF-8 text", "save it as UTF-8"]),
    "only a header": Refused([HEADER], ["file without rows"]),
    "a shift in words": Refused(
        [HEADER, *ROWS], ["shift '8 hours' is not like -4h"], more="--shift '8 hours'"
    ),
    "a symbol with a question mark": Refused(
        ROWS,
        ["'BTC?USDT' is not 2 to 20 capital letters", "such as BTCUSDT"],
        symbol="BTC?USDT",
    ),
    "a symbol of one letter": Refused(ROWS, ["'S' is not 2 to 20 capital letters"], symbol="S"),
    "a symbol in other letters": Refused(
        ROWS, ["'币安人生USDT' is not 2 to 20 capital letters"], symbol="币安人生USDT"
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_safely_is_refused_with_its_place_and_the_way_on(
    imported: Callable[..., Typed], tmp_path: Path, kind: str
) -> None:
    refused = REFUSED[kind]
    path = tmp_path / "below" / "export.csv"
    path.parent.mkdir()
    path.write_bytes("\n".join([*refused.lines, ""]).encode(errors="surrogateescape"))

    shown = imported(path, refused.meaning, refused.symbol, refused.more)

    assert (shown.code, shown.out) == (2, "")
    for told in refused.told:
        assert told in shown.err
    assert "Traceback" not in shown.err
    assert not (tmp_path / "store").exists(), "a failed import leaves no empty store behind"


def test_a_failed_import_leaves_folders_and_stores_that_were_there(
    imported: Callable[..., Typed], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("\n".join([HEADER, *ROWS]))
    bad.write_text("\n".join(changed(7, "107.5", "n/a")))
    (tmp_path / "store").mkdir()

    assert imported(bad, CANDLES).code == 2
    assert list((tmp_path / "store").iterdir()) == []
    assert imported(good, CANDLES).code == 0
    assert imported(bad, CANDLES).code == 2
    assert_twelve(tmp_path / "store")


# ---- columns by number


def test_without_a_header_columns_are_named_by_their_number(
    imported: Callable[..., Typed], tmp_path: Path
) -> None:
    path = tmp_path / "export.csv"
    cells = [row.split(",") for row in ROWS]
    path.write_text("\n".join(",".join([c[0], c[1], c[4], c[2], c[3], c[5]]) for c in cells))
    numbers = {"timestamp_ms": 1, "open": 2, "close": 3, "high": 4, "low": 5, "volume": 6}
    maps = " ".join(f"--map {name}={number}" for name, number in numbers.items())

    assert imported(path, CANDLES, more=f"--no-header {maps}").code == 0
    assert_twelve(tmp_path / "store")


# ---- candles in progress


@pytest.mark.parametrize("column", ["confirm", "isClosed", "is_final"])
@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("false", "true"), ("False", "True")])
def test_a_candle_that_is_not_confirmed_is_left_out_and_counted(
    imported: Callable[..., Typed], tmp_path: Path, column: str, no: str, yes: str
) -> None:
    path = tmp_path / "export.csv"
    rows = [*(f"{row},{yes}" for row in ROWS), f"{START_MS + 12 * M5.ms},1,1,1,1,1,{no}"]
    path.write_text("\n".join([f"{HEADER},{column}", *rows]))

    shown = imported(path, CANDLES)

    assert "1 left out: candle not confirmed" in shown.out
    assert_twelve(tmp_path / "store")


def test_a_candle_that_had_not_closed_is_left_out_until_it_has(
    imported: Callable[..., Typed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join([HEADER, *ROWS]))
    closes_ms = START_MS + 12 * M5.ms
    for now_ms, rows in ((closes_ms - 1, 11), (closes_ms, 12)):
        monkeypatch.setattr(options, "now_ms", lambda now_ms=now_ms: now_ms)
        report = imported(path, CANDLES, more="--json").json["files"][0]
        left_out = {} if rows == 12 else {"candle that had not closed yet": 1}
        assert (report["rows"], report["left_out"]) == (rows, left_out)


# ---- stamps


@pytest.mark.parametrize("early_ms", [0, 1, 1000])
def test_times_of_close_are_turned_into_times_of_open_and_kept_in_the_provenance(
    imported: Callable[..., Typed], typed: Typing, tmp_path: Path, early_ms: int
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join([HEADER, *stamped(lambda t: t + M5.ms - early_ms)]))

    assert imported(path, CANDLES, more="--stamp close").code == 0
    assert_twelve(tmp_path / "store")
    assert "times of close" in typed("llm-trader data info --json --store", tmp_path / "store").out


def test_a_file_that_goes_on_where_the_store_ends_needs_no_stamp(
    imported: Callable[..., Typed], tmp_path: Path
) -> None:
    first, rest = tmp_path / "first.csv", tmp_path / "rest.csv"
    first.write_text("\n".join([HEADER, *ROWS[:1]]))
    rest.write_text("\n".join([HEADER, *ROWS[1:]]))

    assert "--stamp open" in imported(rest, CANDLES).err
    assert imported(first, CANDLES).code == 0
    assert imported(rest, CANDLES).code == 0
    assert_twelve(tmp_path / "store")


def test_a_shift_moves_all_times_and_is_kept_in_the_provenance(
    imported: Callable[..., Typed], typed: Typing, tmp_path: Path
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join([HEADER, *stamped(lambda t: t + 8 * HOUR_MS)]))

    assert imported(path, CANDLES, more="--shift -8h").code == 0
    assert_twelve(tmp_path / "store")
    info = typed("llm-trader data info --json --store", tmp_path / "store").json
    sources = [source["source"] for series in info["series"] for source in series["provenance"]]
    assert sources == ["file export.csv, times shifted by -8h"]


# ---- open interest and funding


@pytest.mark.parametrize(
    ("values", "told", "stored"),
    [
        (
            ["9,9.0"] * 4 + ["0,0"] * 4 + ["9,9.0"] * 4,
            "4 left out: open interest of 0 beside positive values",
            8,
        ),
        (["9,9.0"] * 5 + ["0,0"], "1 left out: open interest of 0", 5),
        (["9,9.0"] * 5 + [","] + ["9,9.0"] * 6, "1 left out: value missing", 11),
        (["0,0"] * 3, "", 3),
    ],
)
def test_open_interest_of_0_beside_positive_values_and_blank_cells_are_unknown(
    imported: Callable[..., Typed], tmp_path: Path, values: list[str], told: str, stored: int
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join([METRICS, *metrics(values)]))

    shown = imported(path, INTEREST)

    assert shown.code == 0
    assert told in shown.out
    with MarketStore.open(tmp_path / "store") as store:
        assert len(store.open_interest("BTCUSDT")) == stored


EIGHT_THEN_ONE = [*range(0, 48, 8), *range(48, 60)]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (EIGHT_THEN_ONE, [8] * 6 + [1] * 12),
        ([0, 1, 2, 3, 4, 12, 20, 28], [1] * 4 + [8] * 4),
        ([0, 8, 16, 32, 40, 48], [8] * 6),  # one settlement is missing
        ([0, 16, 24], [8] * 3),
        ([0, 8], [8] * 2),
        ([0, 4.0001, 8.002, 12], [4] * 4),  # stamped a little late
    ],
)
@pytest.mark.parametrize("stated", ["", "--interval 8h"])
def test_funding_without_intervals_takes_them_from_the_distance_to_the_neighbours(
    imported: Callable[..., Typed],
    tmp_path: Path,
    hours: list[float],
    expected: list[float],
    stated: str,
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join(funding(hours)))

    assert imported(path, f"{FUNDING} {stated}").code == 0
    with MarketStore.open(tmp_path / "store") as store:
        assert store.funding("BTCUSDT").interval_hours.tolist() == expected


def test_a_settlement_without_a_rate_is_left_out_and_changes_no_interval(
    imported: Callable[..., Typed], tmp_path: Path
) -> None:
    path = tmp_path / "export.csv"
    lines = funding([0, 8, 16, 24])
    path.write_text("\n".join([*lines[:2], lines[2].partition(",")[0] + ",", *lines[3:]]))

    assert "1 left out: value missing" in imported(path, FUNDING).out
    with MarketStore.open(tmp_path / "store") as store:
        assert store.funding("BTCUSDT").interval_hours.tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("rate", "more", "stored", "told"),
    [
        ("0.0100", "", 0.01, "warning: export.csv: 9 of 9 funding rates are above 0.75 %"),
        ("0.0100", "--percent", 0.0001, "rates are read as percent"),
        ("0.0100%", "", 0.0001, "rates with the sign % are read as percent"),
        ("0.0001", "", 0.0001, "export.csv"),
    ],
)
def test_funding_in_percent_is_warned_of_and_read_rightly_when_told(
    imported: Callable[..., Typed],
    tmp_path: Path,
    rate: str,
    more: str,
    stored: float,
    told: str,
) -> None:
    path = tmp_path / "export.csv"
    lines = funding(range(0, 72, 8), rate)
    path.write_text("\n".join(["time,close", *lines[1:]]))

    shown = imported(path, f"{FUNDING} --interval 8h --map rate=close", more=more)

    assert told in shown.out
    assert ("warning" in shown.out) == (stored == 0.01)
    with MarketStore.open(tmp_path / "store") as store:
        assert store.funding("BTCUSDT").rate.tolist() == pytest.approx([stored] * 9)


@pytest.mark.parametrize(
    ("meaning", "rows", "stored"),
    [
        (FUNDING, [f"{START_MS + i * 8 * HOUR_MS},8,0.0001" for i in range(3)], 3),
        (FUNDING, [f"{START_MS + i * 8 * HOUR_MS},0.0001" for i in range(3)], 3),
        (INTEREST, [f"{row},,1,1,1" for row in metrics(["9,9.0"] * 4)], 4),
        (INTEREST, [f"{START_MS + i * HOUR_MS},9.5" for i in range(3)], 3),
    ],
)
def test_funding_and_open_interest_without_a_header_lose_no_row(
    imported: Callable[..., Typed], tmp_path: Path, meaning: str, rows: list[str], stored: int
) -> None:
    path = tmp_path / "export.csv"
    path.write_text("\n".join(rows))

    report = imported(path, meaning, more="--json").json["files"][0]

    assert report["write"]["added"] == stored
    assert "no header" in report["notes"][0]


# ---- folders


def test_folders_in_a_folder_are_imported_and_named(typed: Typing, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    for name in ("2026/january", ".hidden"):
        (folder / name).mkdir(parents=True)
        path = folder / name / "binance_um_BTCUSDT_candles_5m.csv.gz"
        path.write_bytes(gzip.compress("\n".join(BINANCE).encode()))

    line = f"llm-trader data import {folder} --exchange binance --store {tmp_path / 'store'}"
    report = typed(f"{line} --json").json

    assert [(f["file"], f["rows"]) for f in report["files"]] == [
        ("2026/january/binance_um_BTCUSDT_candles_5m.csv.gz", 12)
    ]
    assert_twelve(tmp_path / "store")


# ---- the inputs of the report of faults, where they are


def row(
    name: str, code: int, told: Any, meaning: str = CANDLES, symbol: str = "BTCUSDT", more: str = ""
) -> Any:
    return pytest.param(name, code, told, meaning, symbol, more, id=name + more)


@pytest.mark.parametrize(
    ("name", "code", "told", "meaning", "symbol", "more"),
    [
        row("01_binance_no_header.csv", 0, "no header"),
        row("02_seconds_tradingview.csv", 0, "seconds"),
        row("03_seconds_float_kaggle.csv", 0, "seconds"),
        row("04_nanoseconds.csv", 0, "nanoseconds"),
        row("06_newest_first.csv", 0, NEWEST_FIRST),
        row("07_url_line_above_header.csv", 0, NEWEST_FIRST),
        row("07_url_line_above_header.csv", 0, "", more="--map volume='Volume BTC'"),
        row("08_same_row_twice.csv", 0, "1 left out: duplicate row"),
        row("09_blank_line_at_end.csv", 0, "1 left out: blank line"),
        row("11_symbol_column_says_btc.csv", 2, "says 'BTCUSDT'", symbol="ETHUSDT"),
        row("13_open_interest_zero.csv", 0, "4 left out", INTEREST),
        row("14_open_interest_blank.csv", 0, "1 left out", INTEREST),
        row("15_funding_8h_then_1h.csv", 0, "1 h, 8 h", FUNDING),
        row("16_funding_in_percent.csv", 0, "warning", f"{FUNDING} --map rate=close"),
        row("16_funding_in_percent.csv", 0, "", f"{FUNDING} --map rate=close", more="--percent"),
        row("18_BTCUSDT-5m-2026-01-01.zip", 0, ""),
        row("19_candles.csv.gz", 0, ""),
        row("21_camel_case_rest.csv", 0, ""),
        row("22_year_2262.csv", 2, "later than now"),
        row("24_blank_bad_cell_without_place.csv", 2, LINE_9),
    ],
)
def test_the_inputs_that_went_wrong_do_what_their_row_says(
    imported: Callable[..., Typed],
    real_data: Path,
    tmp_path: Path,
    name: str,
    code: int,
    told: str,
    meaning: str,
    symbol: str,
    more: str,
) -> None:
    path = real_data.parent / "cases" / "import" / name
    if not path.exists():
        pytest.skip(f"no {path}")

    shown = imported(path, meaning, symbol, more)

    assert shown.code == code, shown.err
    assert told in shown.out + shown.err
    if code == 0 and meaning == CANDLES:
        assert_twelve(tmp_path / "store")
