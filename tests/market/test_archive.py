"""History from Binance's archive, through the unmodified client, from a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from llm_trader.errors import ArchiveError
from llm_trader.market.archive import download
from llm_trader.market.archive.checksum import parse_checksum
from llm_trader.market.archive.config import ArchiveConfig
from llm_trader.market.archive.filling import (
    ArchiveReport,
    ArchiveSeries,
    fill_from_archive,
    recheck_archive,
)
from llm_trader.market.archive.plan import file_of_path, plan_files
from llm_trader.market.file_export import export_store
from llm_trader.market.file_import import import_folder
from llm_trader.market.history import MarketHistory
from llm_trader.market.months import days
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, M3, M5, MINUTE_MS, Millis, parse_time
from tests.market.archive_server import (
    END_MS,
    START_MS,
    SYMBOL,
    ArchiveServer,
    busy,
    cut_off,
    kline_text,
    market,
    metrics_lines,
    reply,
    serving,
    tree,
    zipped,
)
from tests.market.builders import same_series
from tests.market.stores import content

NOW: Millis = parse_time("2025-02-20")
# A week in ten files, where a test is not about whole months.
WEEK = START_MS, parse_time("2024-12-01")
MONTH_3M = f"monthly/klines/{SYMBOL}/3m/{SYMBOL}-3m-2024-11.zip"
DAY_METRICS = f"daily/metrics/{SYMBOL}/{SYMBOL}-metrics-2024-11-26.zip"


@pytest.fixture(scope="module")
def history() -> MarketHistory:
    return market()


@pytest.fixture(scope="module")
def files(history: MarketHistory) -> dict[str, bytes]:
    return tree(history)


@pytest.fixture
def archive(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0.02)
    with serving(files) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="binance") as store:
        yield store


def config(archive: ArchiveServer) -> ArchiveConfig:
    return ArchiveConfig(url=archive.url, parallel=4, timeout_seconds=5)


def fill(
    store: MarketStore,
    archive: ArchiveServer,
    start_ms: Millis = START_MS,
    end_ms: Millis = END_MS,
    now_ms: Millis = NOW,
) -> ArchiveReport:
    return fill_from_archive(store, config(archive), [SYMBOL], [M3, H4], (start_ms, end_ms), now_ms)


def recheck(store: MarketStore, archive: ArchiveServer) -> ArchiveReport:
    return recheck_archive(store, config(archive), [], (0, NOW), NOW)


def of_kind(report: ArchiveReport, kind: str, timeframe: str | None = None) -> ArchiveSeries:
    return next(s for s in report.series if (s.kind, s.timeframe) == (kind, timeframe))


# ---- the plan


def test_a_span_needs_months_and_the_days_of_a_month_in_progress() -> None:
    now_ms = parse_time("2025-03-03T12:00:00Z")
    span = parse_time("2024-12-15"), parse_time("2025-03-03T12:00:00Z")
    plan = list(plan_files(["BTCUSDT"], [H4, M3], *span, now_ms))
    paths = [file.path for file in plan]
    assert paths[:5] == [
        "monthly/klines/BTCUSDT/3m/BTCUSDT-3m-2024-12.zip",
        "monthly/klines/BTCUSDT/3m/BTCUSDT-3m-2025-01.zip",
        "monthly/klines/BTCUSDT/3m/BTCUSDT-3m-2025-02.zip",
        "daily/klines/BTCUSDT/3m/BTCUSDT-3m-2025-03-01.zip",
        "daily/klines/BTCUSDT/3m/BTCUSDT-3m-2025-03-02.zip",
    ]
    assert [path for path in paths if "funding" in path] == [
        f"monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-{month}.zip"
        for month in ("2024-12", "2025-01", "2025-02")
    ]
    metrics = [path for path in paths if "metrics" in path]
    assert metrics[0] == "daily/metrics/BTCUSDT/BTCUSDT-metrics-2024-12-15.zip"
    assert metrics[-1] == "daily/metrics/BTCUSDT/BTCUSDT-metrics-2025-03-02.zip"
    assert len(metrics) == 17 + 31 + 28 + 2
    # Days stand for a month that ended lately.
    assert [len(file.days) for file in plan[:3]] == [0, 31, 28]
    for file in plan:
        again = file_of_path(file.path)
        assert (again.series, again.period, again.interval) == (
            file.series,
            file.period,
            file.interval,
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{digest}  a.zip\n", True),
        ("{digest} *a.zip", True),
        ("{digest}  ./files/a.zip\r\n", True),
        ("{digest}  b.zip\n", False),
        ("<html>not found</html>", False),
        ("", False),
        ("{digest}", False),
    ],
)
def test_a_checksum_is_of_the_file_that_it_names(text: str, expected: bool) -> None:
    digest = sha256(b"x").hexdigest()
    found = parse_checksum(text.format(digest=digest.upper()), "a.zip")
    assert found == (digest if expected else None)


# ---- filling a store


def test_the_store_has_what_the_archive_has(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    report = fill(store, archive)
    assert not report.problems
    assert same_series(store.candles(SYMBOL, M3), history.intraday)
    assert same_series(store.candles(SYMBOL, H4), history.four_hour)
    assert same_series(store.funding(SYMBOL), history.funding)
    assert len(store.open_interest(SYMBOL)) == (END_MS - START_MS) // M5.ms
    assert store.open_interest_interval_ms(SYMBOL) == M5.ms
    assert store.exchange == "binance"
    assert [s.source for s in store.provenance(SYMBOL, M3)] == [
        f"archive of {archive.url.removeprefix('http://')}"
    ]
    candles = of_kind(report, "candles", "3m")
    assert (candles.files, candles.write.added) == (3, len(history.intraday))
    assert not candles.gaps
    # Each file and its checksum once, and none of a day where its month is there.
    assert set(archive.requests.values()) == {1}
    assert not [path for path in archive.requests if path.startswith("daily/klines")]
    assert not list((store.path / "archive-downloads").glob("*.zip*"))


def test_running_again_asks_for_nothing(store: MarketStore, archive: ArchiveServer) -> None:
    fill(store, archive, *WEEK)
    before, expected = archive.requests.total(), content(store)
    report = fill(store, archive, *WEEK)
    assert archive.requests.total() == before
    assert content(store) == expected
    assert of_kind(report, "candles", "3m").stored_before == 1


@pytest.mark.soak
def test_days_stand_for_a_month_that_is_not_there_yet(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    january = f"monthly/klines/{SYMBOL}/3m/{SYMBOL}-3m-2025-01.zip"
    monthly = archive.files.pop(january)
    fill(store, archive)
    assert same_series(store.candles(SYMBOL, M3), history.intraday)
    assert archive.bodies[f"daily/klines/{SYMBOL}/3m/{SYMBOL}-3m-2025-01-07.zip"] == 1

    archive.files[january] = monthly
    asked = archive.requests.total()
    fill(store, archive, now_ms=NOW + DAY_MS)
    assert archive.requests.total() == asked


@pytest.mark.soak
def test_the_month_in_progress_comes_as_days(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    now_ms = parse_time("2025-01-06T12:00:00Z")
    for path in list(archive.files):
        if path.endswith("2025-01.zip") or path[-14:] >= "2025-01-06.zip":
            del archive.files[path]
    report = fill(store, archive, end_ms=now_ms, now_ms=now_ms)
    # The 5th is the last whole day.
    last_ms = parse_time("2025-01-06")
    assert same_series(store.candles(SYMBOL, M3), history.intraday.between(None, last_ms))
    assert not of_kind(report, "candles", "3m").not_published


def test_what_is_not_published_is_listed_and_not_asked_for_again(
    store: MarketStore, archive: ArchiveServer
) -> None:
    listed_ms = parse_time("2024-12-01")
    for path in list(archive.files):
        if file_of_path(path).period.start_ms < listed_ms:
            del archive.files[path]
    report = fill(store, archive)
    assert not report.problems
    assert of_kind(report, "candles", "3m").not_published == ["2024-11-01 to 2024-12-01"]
    assert of_kind(report, "funding").not_published == ["2024-11-01 to 2024-12-01"]
    assert of_kind(report, "open_interest").not_published == ["2024-11-24 to 2024-12-01"]
    asked = archive.requests.total()
    again = fill(store, archive)
    assert archive.requests.total() == asked
    assert of_kind(again, "open_interest").not_published == ["2024-11-24 to 2024-12-01"]


def test_an_archive_is_exported_and_imported_to_the_same_rows(
    store: MarketStore, archive: ArchiveServer, tmp_path: Path
) -> None:
    fill(store, archive, *WEEK)
    expected = content(store)
    export_store(store, tmp_path / "out", file_format="parquet")
    with MarketStore.open(tmp_path / "b", write=True, exchange="binance") as other:
        import_folder(tmp_path / "out", other, exchange="binance", written_at_ms=NOW)
        assert content(other) == expected


def test_a_hole_of_the_exchange_is_a_gap_in_the_summary(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    day = parse_time("2024-11-27")
    whole = history.intraday.between(START_MS, parse_time("2024-12-01"))
    kept = np.flatnonzero((whole.times < day) | (whole.times >= day + 3 * M3.ms))
    lacking = type(whole)(M3, whole.times[kept], *(v[kept] for _, v in whole.columns()))
    text = kline_text(lacking, header=False, microseconds=False)
    archive.files[MONTH_3M] = zipped(MONTH_3M.rpartition("/")[2], text)
    report = fill(store, archive, *WEEK)
    [gap] = of_kind(report, "candles", "3m").gaps
    assert (gap.start, gap.missing) == ("2024-11-27T00:00:00Z", 3)


@pytest.mark.soak
def test_candles_that_are_not_asked_for_are_built(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    span = START_MS, END_MS
    report = fill_from_archive(store, config(archive), [SYMBOL], [M3], span, NOW)
    [derived] = report.derived
    assert (derived.timeframe, derived.rows) == ("4h", len(history.four_hour))
    assert store.built_candles(SYMBOL, H4).contain(history.four_hour.times).all()


def test_an_archive_without_rights_is_named_at_once(
    store: MarketStore, archive: ArchiveServer
) -> None:
    archive.answers[f"{MONTH_3M}.CHECKSUM"] = [busy(403)]
    archive.answers[DAY_METRICS] = [busy(403)]
    report = fill(store, archive, *WEEK)
    assert {p.file for p in report.problems} == {MONTH_3M, DAY_METRICS}
    assert all("answers 403" in p.reason for p in report.problems)
    assert archive.requests[f"{MONTH_3M}.CHECKSUM"] == archive.requests[DAY_METRICS] == 1


# ---- content that is wrong although its checksum is right


def with_metrics(archive: ArchiveServer, lines: list[str], path: str = DAY_METRICS) -> None:
    archive.files[path] = zipped(path.rpartition("/")[2], "\n".join(lines) + "\n")


def test_zeros_blanks_duplicates_and_missing_times_of_metrics_are_no_values(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    day = next(days(parse_time("2024-11-26"), END_MS))
    lines = metrics_lines(history, day)

    def with_cells(row: int, interest: str, value: str) -> str:
        cells = lines[row].split(",")
        return ",".join([*cells[:2], interest, value, *cells[4:]])

    lines[3] = with_cells(3, "0.00000000", "0.00000000")
    lines[4] = with_cells(4, "", "")
    lines[5] = with_cells(5, lines[5].split(",")[2], "0")
    lines.insert(8, lines[7])
    del lines[20:30]
    with_metrics(archive, lines)
    report = fill(store, archive, *WEEK)
    assert not report.problems
    interest = store.open_interest(SYMBOL, day.start_ms + 1, day.end_ms + 1)
    assert len(interest) == 288 - 2 - 10
    assert (interest.open_interest > 0).all()
    assert np.isnan(interest.open_interest_value).sum() == 1
    assert sum(of_kind(report, "open_interest").left_out.values()) == 3


def test_metrics_are_known_at_the_end_of_their_five_minutes_whichever_end_the_file_has(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    span = parse_time("2026-06-24"), parse_time("2026-06-26")
    for day in days(*span):
        header, *rows = metrics_lines(history, day)
        cells = [row.split(",") for row in rows]
        numbered = [",".join([*c[:2], str(i + 1), *c[3:]]) for i, c in enumerate(cells)]
        path = f"daily/metrics/{SYMBOL}/{SYMBOL}-metrics-{day.name}.zip"
        with_metrics(archive, [header, *numbered], path)
    report = fill(store, archive, *span, now_ms=span[1] + DAY_MS)
    assert not report.problems
    interest = store.open_interest(SYMBOL)
    expected = np.arange(span[0], span[1], M5.ms) + M5.ms
    assert interest.times.tolist() == expected.tolist()
    assert interest.open_interest.tolist() == [*range(1, 289)] * 2


def test_a_day_of_zeros_alone_is_no_open_interest(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    day = next(days(parse_time("2024-11-26"), END_MS))
    header, *rows = metrics_lines(history, day)
    cells = [row.split(",") for row in rows]
    with_metrics(archive, [header, *(",".join([*c[:2], "0", "0", *c[4:]]) for c in cells)])
    report = fill(store, archive, *WEEK)
    assert [p.file for p in report.problems] == [DAY_METRICS]
    assert not len(store.open_interest(SYMBOL, day.start_ms + 1, day.end_ms + 1))


def test_a_bad_file_is_refused_with_its_place_and_the_others_go_on(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    month = history.intraday.between(START_MS, parse_time("2024-12-01"))
    lines = kline_text(month, header=False, microseconds=False).splitlines()
    cells = lines[99].split(",")
    cells[2], cells[3] = cells[3], cells[2]
    lines[99] = ",".join(cells)
    good = archive.files[MONTH_3M]
    archive.files[MONTH_3M] = zipped(MONTH_3M.rpartition("/")[2], "\n".join(lines) + "\n")
    report = fill(store, archive, *WEEK)
    [problem] = report.problems
    assert problem.file == MONTH_3M
    assert "line 100" in problem.reason
    assert "high below low" in problem.reason
    assert not len(store.candles(SYMBOL, M3))
    assert same_series(store.candles(SYMBOL, H4), history.four_hour.between(*WEEK))

    # It is asked about again, and fetched once it has changed.
    again = fill(store, archive, *WEEK)
    assert [p.file for p in again.problems] == [MONTH_3M]
    assert archive.bodies[MONTH_3M] == 1
    archive.files[MONTH_3M] = good
    assert not fill(store, archive, *WEEK).problems
    assert same_series(store.candles(SYMBOL, M3), history.intraday.between(*WEEK))


# ---- transfers that fail


def test_a_wrong_checksum_stores_nothing_of_the_file(
    store: MarketStore, archive: ArchiveServer
) -> None:
    archive.checksums[MONTH_3M] = "0" * 64
    report = fill(store, archive, *WEEK)
    [problem] = report.problems
    assert problem.file == MONTH_3M
    assert "publishes 000000000000" in problem.reason
    assert not len(store.candles(SYMBOL, M3, START_MS, parse_time("2024-12-01")))

    archive.checksums.clear()
    assert not fill(store, archive, *WEEK).problems


def test_a_file_that_changes_while_it_is_fetched_is_fetched_again(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    stale = sha256(b"the file before").hexdigest()
    archive.answers[f"{MONTH_3M}.CHECKSUM"] = [
        lambda request: reply(request, 200, f"{stale}  {MONTH_3M.rpartition('/')[2]}\n".encode())
    ]
    assert not fill(store, archive, *WEEK).problems
    assert same_series(store.candles(SYMBOL, M3), history.intraday.between(*WEEK))


def test_a_transfer_that_is_cut_off_is_repeated(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    archive.answers[MONTH_3M] = [cut_off(archive.files[MONTH_3M])] * 2
    assert not fill(store, archive, *WEEK).problems
    assert archive.requests[MONTH_3M] == 3
    assert same_series(store.candles(SYMBOL, M3), history.intraday.between(*WEEK))


def test_a_busy_archive_is_asked_again_when_it_says(
    store: MarketStore, archive: ArchiveServer
) -> None:
    archive.answers[MONTH_3M] = [busy(503, Retry_After="1"), busy(429)]
    assert not fill(store, archive, *WEEK).problems
    first, second, _ = archive.times[MONTH_3M]
    assert second - first >= 1


def test_an_archive_that_stays_busy_is_named_and_a_later_run_goes_on(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    archive.answers[DAY_METRICS] = [busy(503)] * 5
    with pytest.raises(ArchiveError, match=r"127\.0\.0\.1:\d+ answers 503 Service Unavailable"):
        fill(store, archive, *WEEK)
    assert same_series(store.candles(SYMBOL, M3), history.intraday.between(*WEEK))
    assert not fill(store, archive, *WEEK).problems
    assert max(n for path, n in archive.bodies.items()) == 1


def test_a_wait_of_hours_is_not_waited_for(store: MarketStore, archive: ArchiveServer) -> None:
    archive.answers[f"{MONTH_3M}.CHECKSUM"] = [busy(418, Retry_After="7200")]
    with pytest.raises(ArchiveError, match="in 7200 seconds"):
        fill(store, archive, *WEEK)


def test_without_a_network_the_host_and_the_setting_are_named(
    store: MarketStore, archive: ArchiveServer
) -> None:
    nowhere = ArchiveConfig(url="http://127.0.0.1:9", timeout_seconds=1)
    with pytest.raises(
        ArchiveError, match=r"127\.0\.0\.1:9 cannot be reached.*market\.archive\.url"
    ):
        fill_from_archive(store, nowhere, [SYMBOL], [M3], (START_MS, END_MS), NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        (
            {
                "retry-after": "Wed, 01 Jan 2025 00:01:30 GMT",
                "date": "Wed, 01 Jan 2025 00:00:00 GMT",
            },
            90,
        ),
        ({"retry-after": "Wed, 01 Jan 2025 00:01:30 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-5"}, 0),
        ({}, 0),
    ],
)
def test_how_long_to_wait_is_read_in_seconds_or_as_a_time(
    headers: dict[str, str], seconds: float
) -> None:
    assert download._retry_after_seconds(headers) == seconds


# ---- corrections


def test_a_recheck_fetches_what_changed_and_nothing_else(
    store: MarketStore, archive: ArchiveServer, history: MarketHistory
) -> None:
    fill(store, archive, *WEEK)
    before = archive.requests.copy(), archive.bodies.copy()
    version = store.version
    report = recheck(store, archive)
    assert archive.bodies == before[1]
    assert store.version == version
    assert sum(s.unchanged for s in report.series) == len(before[1])

    day = next(days(parse_time("2024-11-26"), END_MS))
    lines = metrics_lines(history, day)
    cells = lines[10].split(",")
    lines[10] = ",".join([*cells[:2], "123456.0", *cells[3:]])
    with_metrics(archive, lines)
    mark = store.changes_since(SYMBOL, None).mark
    report = recheck(store, archive)
    assert archive.bodies - before[1] == {DAY_METRICS: 1}
    interest = of_kind(report, "open_interest")
    assert (interest.files, interest.write.replaced, interest.write.added) == (1, 1, 0)
    at_ms = day.start_ms + 10 * 5 * MINUTE_MS
    assert store.open_interest(SYMBOL, at_ms, at_ms + 1).open_interest.tolist() == [123456.0]
    assert store.changes_since(SYMBOL, mark).stretches


def test_a_recheck_names_a_file_that_is_gone(store: MarketStore, archive: ArchiveServer) -> None:
    fill(store, archive, *WEEK)
    del archive.files[DAY_METRICS]
    report = recheck(store, archive)
    assert [(p.file, p.reason[:20]) for p in report.problems] == [
        (DAY_METRICS, "no longer published;")
    ]
    assert len(store.open_interest(SYMBOL)) == (WEEK[1] - WEEK[0]) // M5.ms
