"""`python -m benchmarks.importing [--rows N]`: peak memory and time of importing one large file.

Not a part of `make bench`, as ten million rows take minutes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from llm_trader.timeframe import M1

_ROWS = 10_000_000
_LATEST_MS = 1_735_689_600_000  # 2025-01-01; candles end there
# The kernel's own count; getrusage gives a child at least the peak of its parent.
_PROGRAM = """
import sys, time
from pathlib import Path
from llm_trader.cli.main import main
try:
    main()
finally:
    sys.stderr.write(Path("/proc/self/status").read_text())
    sys.stderr.write(f"CPU: {time.process_time():.1f} s")
"""


class ImportCost(NamedTuple):
    peak_mb: float
    cpu_s: float
    wall_s: float


def write_candles(path: Path, rows: int) -> None:
    """A random walk of 1m candles, as Parquet or CSV."""
    rng = np.random.default_rng(7)
    close = np.round(20_000 * np.exp(np.cumsum(0.0005 * rng.standard_normal(rows))), 2)
    open_ = np.concatenate((close[:1], close[:-1]))
    frame = pl.DataFrame(
        {
            "timestamp_ms": _LATEST_MS - np.arange(rows, 0, -1) * M1.ms,
            "open": open_,
            "high": np.round(np.maximum(open_, close) * 1.0005, 2),
            "low": np.round(np.minimum(open_, close) * 0.9995, 2),
            "close": close,
            "volume": np.round(rng.gamma(2, 20, rows), 3),
        }
    )
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


def import_cost(file: Path, store: Path) -> ImportCost:
    """Of `llm-trader data import` as a process of its own."""
    command = [sys.executable, "-c", _PROGRAM, "data", "import", str(file)]
    command += ["--exchange", "okx", "--store", str(store)]
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - started
    peak = re.search(r"VmHWM:\s*(\d+) kB", ended.stderr)
    cpu = re.search(r"CPU: (\S+) s", ended.stderr)
    if ended.returncode or peak is None or cpu is None:
        raise SystemExit(f"the import failed: {ended.stderr}")
    return ImportCost(int(peak[1]) / 1024, float(cpu[1]), wall_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importing", description=__doc__)
    parser.add_argument("--rows", type=int, default=_ROWS)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="llm-trader-bench-") as name:
        for suffix in ("parquet", "csv"):
            file = Path(name) / f"okx_linear_BTCUSDT_candles_1m.{suffix}"
            write_candles(file, rows)
            cost = import_cost(file, Path(name) / suffix)
            print(
                f"importing {rows:,} candles of 1m from {suffix}: peak memory {cost.peak_mb:.0f} "
                f"MB, {cost.cpu_s:.0f} s of CPU, {cost.wall_s:.0f} s"
            )


if __name__ == "__main__":
    main()
