"""`python -m benchmarks [--only NAME ...] [--json]`."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import computing, opening, processes, states, storing, workload
from benchmarks.backtest import backtest
from benchmarks.batch import batch
from benchmarks.endurance import endurance
from benchmarks.evaluation import evaluation
from benchmarks.flood import floods
from benchmarks.models import models
from benchmarks.security import security
from benchmarks.text import text
from benchmarks.timing import Figure, MachineSpeed
from benchmarks.workers import workers
from benchmarks.workflow import workflow
from llm_trader.index.embedded import EmbeddedIndex


def _with_index(measure: Callable[[EmbeddedIndex], list[Figure]], folder: Path) -> list[Figure]:
    with EmbeddedIndex.open(folder / "index") as index:
        return measure(index)


# In this order: ingestion makes the index that the later ones search, and on Linux its peak memory
# is at least that of this process when it starts, so what fills this process comes last.
MEASURES: dict[str, Callable[[Path], list[Figure]]] = {
    "snapshots": lambda folder: computing.snapshots(),
    "ingestion": processes.ingestion,
    "search": lambda folder: _with_index(computing.search, folder),
    "references": lambda folder: _with_index(computing.references, folder),
    "growth": lambda folder: _with_index(lambda index: computing.growth(index, folder), folder),
    "server": processes.server,
    "batch": batch,
    "security": security,
    "workers": workers,
    "flood": floods,
    "endurance": endurance,
    "text": text,
    "evaluation": evaluation,
    "append": storing.append,
    "opening": opening.opening,
    "state": states.state_of_now,
    "models": models,
    "workflow": workflow,
    "backtest": backtest,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    speed = MachineSpeed()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="llm-trader-bench-") as name:
        folder = Path(name)
        with console.status("simulating a market"):
            workload.write_store(folder / "market")
        for measure, run in MEASURES.items():
            if measure in arguments.only or measure == "ingestion":
                for _ in range(5):
                    speed.sample()
                with console.status(measure):
                    done = run(folder)
                for _ in range(5):
                    speed.sample()
                figures += done if measure in arguments.only else []
    figures.append(speed.figure())
    if arguments.json:
        print(msgspec.json.encode([figure._asdict() for figure in figures]).decode())
    else:
        Console(width=150).print(_table(figures))


def _table(figures: list[Figure]) -> Table:
    table = Table("figure", "measured", "target", "", box=None)
    for figure in figures:
        verdict = {True: "reached", False: "short", None: ""}[figure.reached]
        table.add_row(figure.name, figure.measured, figure.target, verdict)
    return table


if __name__ == "__main__":
    main()
