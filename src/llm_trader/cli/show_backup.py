"""Tables of the `backup` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli.show import heading, line, minute, table

if TYPE_CHECKING:
    from llm_trader.backup.manifest import Listed, Manifest
    from llm_trader.backup.restore import RestoreReport
    from llm_trader.backup.verify import VerifyReport


def created(console: Console, manifest: Manifest, backups: Path) -> None:
    heading(console, f"Backup {manifest.name} in {backups / manifest.name}")
    if manifest.market is not None:
        rows = sum(series.rows for series in manifest.market.series)
        line(console, f"market store: {len(manifest.market.series)} series, {rows} rows")
    if (index := manifest.indexed) is not None:
        states = sum(symbol.points for symbol in index.symbols)
        line(console, f"index: {len(index.symbols)} symbols, {states} states")
    _notes(console, manifest.notes)
    line(console, f"{len(manifest.files)} files, {_size(manifest.bytes)}; check it with:")
    line(console, f"llm-trader backup verify {manifest.name} --from {backups}")


def listed(console: Console, backups: list[Listed], folder: Path) -> None:
    heading(console, f"Backups in {folder}")
    rows = table("", "name", "created", "holds", "state", "size", right_from=4)
    for backup in backups:
        created_at = "-" if backup.created_at is None else minute(backup.created_at)
        parts = ", ".join(backup.parts) or "-"
        rows.add_row(backup.name, created_at, parts, backup.state, _size(backup.bytes))
    if backups:
        console.print(rows)
    else:
        line(console, f"none; make one with: llm-trader backup create --to {folder}")


def verified(console: Console, report: VerifyReport) -> None:
    parts = " and ".join(report.parts)
    heading(console, f"Backup {report.name} of {report.created_at}: {parts}")
    for problem in report.problems:
        line(console, f"PROBLEM {problem.file}: {problem.problem}")
    if report.answers:
        line(console, f"{report.answers} recorded questions are answered identically")
    _notes(console, report.notes)
    if not report.problems:
        line(console, f"whole: {report.files} files, {_size(report.bytes)}")


def restored(console: Console, report: RestoreReport) -> None:
    heading(console, f"Restored {report.name} of {report.created_at}")
    for part, place in report.restored.items():
        line(console, f"{part}: {place}")
    if report.answers:
        line(console, f"{report.answers} recorded questions are answered identically")
    _notes(console, report.notes)


def _notes(console: Console, notes: list[str]) -> None:
    for note in notes:
        line(console, f"note: {note}")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
