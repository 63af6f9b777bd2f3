"""`llm-trader backup`: creates, lists, verifies and restores backups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, heading, line, minute, table

if TYPE_CHECKING:
    from llm_trader.backup.manifest import Listed, Manifest
    from llm_trader.backup.restore import RestoreReport
    from llm_trader.backup.verify import VerifyReport

app = typer.Typer(
    no_args_is_help=True,
    help="Backups of the market store and the index: create, list, verify, restore.",
)

_FOLDER = Path("var/backups")
_MIB = 1 << 20

Name = Annotated[str, Argument(help="Name of the backup, as `llm-trader backup list` shows it.")]
From = Annotated[Path, Option("--from", help="Folder that holds the backups.")]
Only = Annotated[
    Literal["market", "index"] | None, Option(help="Take one part only.", show_default=False)
]


@app.command()
@with_job("store", "index", "qdrant_url", unit="MiB", steps_per_unit=_MIB)
def create(
    job: Job,
    to: Annotated[Path, Option(help="Folder that holds the backups.")] = _FOLDER,
    name: Annotated[str | None, Option(help="Name of the backup; by default the time.")] = None,
    only: Only = None,
) -> Result:
    """Copy the market store and the index into a new folder.

    Servers and ingestions may run meanwhile: each copy shows one moment. On a Qdrant server, every
    node named in index.qdrant.node_urls makes a snapshot, which is downloaded and deleted there.
    Some queries to the index are recorded with their answers, so that verify and restore can
    prove that the answers stay the same. An interrupted backup is listed as unfinished and is
    never restored.
    """
    from llm_trader.app.backups import make_backup

    manifest = make_backup(job, to, name, only=only)
    return Result(manifest, describe_new_backup(manifest, to))


@app.command("list")
@with_job()
def list_backups(job: Job, from_: From = _FOLDER) -> Result:
    """Show the backups of a folder with their time, contents and state."""
    from llm_trader.backup.manifest import backups_in

    backups = backups_in(from_)
    return Result(backups, _describe_backups(backups, from_))


@app.command()
@with_job(unit="MiB", steps_per_unit=_MIB)
def verify(job: Job, name: Name, from_: From = _FOLDER) -> Result:
    """Check that a backup is complete, and that its copies open and answer.

    Compares all files with their SHA-256, opens and counts the copies, and sends the recorded
    queries to the index. Exits with 1 on any problem, naming the file. Snapshots of a
    Qdrant server are compared by digest only; restore checks their answers.
    """
    from llm_trader.app.backups import check_backup

    report = check_backup(from_, name, job.progress)
    return Result(report, _describe_verification(report), bool(report.problems))


@app.command()
@with_job("store", "index", "qdrant_url", unit="MiB", steps_per_unit=_MIB)
def restore(
    context: typer.Context,
    job: Job,
    name: Name,
    from_: From = _FOLDER,
    only: Only = None,
    swap: Annotated[
        bool, Option("--swap", help="Point a live Qdrant alias at the restored collection.")
    ] = False,
) -> Result:
    """Restore a backup to empty folders, or to a new Qdrant collection.

    Everything is copied next to its destination and checked with the recorded queries before it
    is moved there; an interrupted restore leaves the destination empty. Nothing is ever
    overwritten: move an old folder away first. On a Qdrant server that is already live, --swap
    points the alias at the restored collection, and the old one stays until
    `llm-trader index prune`.
    """
    from llm_trader.app.backups import restore as restore_backup

    # A server in the settings file may serve other data; only a flag asks to restore into it.
    to_qdrant = bool(context.params["qdrant_url"])
    report = restore_backup(job, from_, name, only=only, swap=swap, to_qdrant=to_qdrant)
    return Result(report, _describe_restoration(report))


def describe_new_backup(manifest: Manifest, folder: Path) -> Description:
    yield heading(f"Backup {manifest.name} in {folder / manifest.name}")
    if manifest.market is not None:
        rows = sum(series.rows for series in manifest.market.series)
        yield line(f"market store: {len(manifest.market.series)} series, {rows} rows")
    if (index := manifest.indexed) is not None:
        states = sum(symbol.points for symbol in index.symbols)
        yield line(f"index: {len(index.symbols)} symbols, {states} states")
    yield from _notes(manifest.notes)
    yield line(f"{len(manifest.files)} files, {_size(manifest.bytes)}; check it with:")
    yield line(f"llm-trader backup verify {manifest.name} --from {folder}")


def _describe_backups(backups: list[Listed], folder: Path) -> Description:
    yield heading(f"Backups in {folder}")
    rows = (
        (
            backup.name,
            "-" if backup.created_at is None else minute(backup.created_at),
            ", ".join(backup.parts) or "-",
            backup.state,
            _size(backup.bytes),
        )
        for backup in backups
    )
    if backups:
        yield table("", "name", "created", "holds", "state", "size", rows=rows, right_from=4)
    else:
        yield line(f"none; make one with: llm-trader backup create --to {folder}")


def _describe_verification(report: VerifyReport) -> Description:
    parts = " and ".join(report.parts)
    yield heading(f"Backup {report.name} of {report.created_at}: {parts}")
    for problem in report.problems:
        yield line(f"PROBLEM {problem.file}: {problem.problem}")
    yield from _answers_and_notes(report)
    if not report.problems:
        yield line(f"whole: {report.files} files, {_size(report.bytes)}")


def _describe_restoration(report: RestoreReport) -> Description:
    yield heading(f"Restored {report.name} of {report.created_at}")
    for part, place in report.restored.items():
        yield line(f"{part}: {place}")
    yield from _answers_and_notes(report)


def _answers_and_notes(report: VerifyReport | RestoreReport) -> Description:
    if report.answers:
        yield line(f"{report.answers} recorded questions are answered identically")
    yield from _notes(report.notes)


def _notes(notes: list[str]) -> Description:
    return (line(f"note: {note}") for note in notes)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.1f} MiB"
