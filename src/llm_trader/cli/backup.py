"""`llm-trader backup`: copies of the market store and of the index, checked and put back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_trader.cli import options
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import SECOND_MS, iso8601

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from llm_trader.backup.cluster import Nodes
    from llm_trader.backup.create import Sources
    from llm_trader.backup.manifest import Listed, Manifest
    from llm_trader.backup.restore import RestoreReport, Targets
    from llm_trader.backup.verify import VerifyReport
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Backups of the market store and the index: make, list, verify, restore.",
)

_FOLDER = Path("var/backups")

Name = Annotated[str, typer.Argument(help="Of a backup, as `llm-trader backup list` shows it.")]
From = Annotated[Path, typer.Option("--from", help="Folder that holds the backups.")]
Only = Annotated[
    Literal["market", "index"] | None,
    typer.Option("--only", help="Leave out the other part.", show_default=False),
]


@app.command()
def create(
    to: Annotated[Path, typer.Option("--to", help="Folder that holds the backups.")] = _FOLDER,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the backup; the time if left out.")
    ] = None,
    only: Only = None,
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Copy the market store and the index into a folder of their own.

    Servers and ingestions may be at work: each copy is of one moment. Of a Qdrant server, every
    node named in index.qdrant.node_urls makes a snapshot, which is downloaded and deleted there.
    Some questions to the index are recorded with their answers, so that verify and restore can
    prove that it answers as before. A backup that was interrupted is listed as unfinished, and is
    never restored from.
    """
    from llm_trader.backup.create import create_backup

    settings = _settings(config, store, index, qdrant_url)
    made_at = iso8601(options.now_ms() // SECOND_MS * SECOND_MS)
    with options.progress_bar("MiB") as bar:
        work = create_backup(
            to,
            name or made_at.replace(":", ""),  # which file systems dislike
            _sources(settings, only),
            created_at=made_at,
            progress=_Mebibytes(bar),
        )
        manifest = asyncio.run(work)
    if json:
        options.print_json(manifest)
    else:
        _show_created(options.tables(), manifest, to / manifest.name)


@app.command("list")
def list_backups(from_: From = _FOLDER, json: options.Json = False) -> None:
    """Show the backups of a folder: when they were made, what they hold, whether complete."""
    from llm_trader.backup.manifest import backups_in

    found = backups_in(from_)
    if json:
        options.print_json(found)
    else:
        _show_list(options.tables(), found, from_)


@app.command()
def verify(name: Name, from_: From = _FOLDER, json: options.Json = False) -> None:
    """Check that a backup is whole, and that its copies open and answer.

    All files are compared with their SHA-256, the copies are opened and counted, and the index is
    asked the recorded questions. Exits with 1 on any problem, naming the file. Snapshots of a
    Qdrant server are compared by digest only; they prove themselves when they are restored.
    """
    from llm_trader.backup.verify import verify_backup

    with options.progress_bar("MiB") as bar:
        report = asyncio.run(verify_backup(_folder(from_, name), _Mebibytes(bar)))
    if json:
        options.print_json(report)
    else:
        _show_verified(options.tables(), report)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def restore(
    name: Name,
    from_: From = _FOLDER,
    only: Only = None,
    swap: Annotated[
        bool,
        typer.Option("--swap", help="Lead a live Qdrant alias to the restored collection."),
    ] = False,
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Put a backup where nothing is yet: folders that are empty, or a new Qdrant collection.

    Everything is copied beside its place, opened, and asked the recorded questions before it is
    put there; an interrupted restore leaves the place empty. Nothing is ever overwritten: move an
    old folder away first. On a Qdrant server that is live already, --swap leads the alias to the
    restored collection, and the old one is kept until `llm-trader index prune`.
    """
    from llm_trader.backup.manifest import read_manifest
    from llm_trader.backup.restore import restore_backup

    settings = _settings(config, store, index, qdrant_url)
    folder = _folder(from_, name)
    manifest = read_manifest(folder)
    if qdrant_url and manifest.index and only != "market":
        raise InvalidInputError(
            "this backup holds an embedded index: restore it with --index and without "
            "--qdrant-url, then take it over with: llm-trader index migrate"
        )
    targets = _targets(settings, manifest, only)
    with options.progress_bar("MiB") as bar:
        work = restore_backup(folder, targets, swap=swap, progress=_Mebibytes(bar))
        report = asyncio.run(work)
    if json:
        options.print_json(report)
    else:
        _show_restored(options.tables(), report)


class _Mebibytes:
    """Feeds a progress bar of one line for each thing that is done."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._lines: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._lines:
            self._lines[what] = self._bar.add_task(what, total=total >> 20)
        self._bar.update(self._lines[what], completed=done >> 20, total=total >> 20)


def _settings(
    config: Path | None, store: Path | None, index: Path | None, qdrant_url: str | None
) -> Settings:
    return options.settings_of(
        config,
        market__store=store,
        index__path=index,
        index__qdrant__url=qdrant_url,
        logging__level="warn",
    )


def _sources(settings: Settings, only: str | None) -> Sources:
    from llm_trader.backup.create import Sources

    embedded = settings.index.qdrant.url is None
    return Sources(
        market=settings.market.store if only != "index" else None,
        index=settings.index.path if only != "market" and embedded else None,
        qdrant=_nodes(settings) if only != "market" and not embedded else None,
    )


def _targets(settings: Settings, manifest: Manifest, only: str | None) -> Targets:
    from llm_trader.backup.restore import Targets

    return Targets(
        market=settings.market.store if only != "index" else None,
        index=settings.index.path if only != "market" else None,
        qdrant=_nodes(settings) if only != "market" and manifest.qdrant else None,
    )


def _nodes(settings: Settings) -> Nodes:
    from llm_trader.app.indexes import qdrant_server
    from llm_trader.backup.cluster import Nodes

    return Nodes(qdrant_server(settings, os.environ), settings.index.qdrant.node_urls)


def _folder(backups: Path, name: str) -> Path:
    from llm_trader.backup.manifest import checked_name

    return backups / checked_name(name)


def _show_created(console: Console, manifest: Manifest, folder: Path) -> None:
    from llm_trader.cli.show import heading

    heading(console, f"Backup {manifest.name} in {folder}")
    if manifest.market is not None:
        rows = sum(series.rows for series in manifest.market.series)
        _line(console, f"market store: {len(manifest.market.series)} series, {rows} rows")
    if (held := manifest.indexed) is not None:
        states = sum(of.points for of in held.symbols)
        _line(console, f"index: {len(held.symbols)} symbols, {states} states")
    _line(console, f"{len(manifest.files)} files, {_size(manifest.bytes)}; check it with:")
    _line(console, f"llm-trader backup verify {manifest.name} --from {folder.parent}")


def _show_list(console: Console, found: list[Listed], folder: Path) -> None:
    from llm_trader.cli.show import heading, minute, table

    heading(console, f"Backups in {folder}")
    backups = table("", "name", "created", "holds", "state", "size", right_from=4)
    for of in found:
        created = "-" if of.created_at is None else minute(of.created_at)
        held = ", ".join(of.parts) or "-"
        backups.add_row(of.name, created, held, of.state, _size(of.bytes))
    if found:
        console.print(backups)
    else:
        _line(console, f"none; make one with: llm-trader backup create --to {folder}")


def _show_verified(console: Console, report: VerifyReport) -> None:
    from llm_trader.cli.show import heading

    held = " and ".join(report.parts)
    heading(console, f"Backup {report.name} of {report.created_at}: {held}")
    for problem in report.problems:
        _line(console, f"PROBLEM {problem.file}: {problem.problem}")
    if report.answers:
        _line(console, f"{report.answers} recorded questions are answered identically")
    for note in report.notes:
        _line(console, f"note: {note}")
    if not report.problems:
        _line(console, f"whole: {report.files} files, {_size(report.bytes)}")


def _show_restored(console: Console, report: RestoreReport) -> None:
    from llm_trader.cli.show import heading

    heading(console, f"Restored {report.name} of {report.created_at}")
    for part, where in report.restored.items():
        _line(console, f"{part}: {where}")
    if report.answers:
        _line(console, f"{report.answers} recorded questions are answered identically")
    for note in report.notes:
        _line(console, f"note: {note}")


def _line(console: Console, text: str) -> None:
    """Never broken, so that a path or a command in it can be copied."""
    console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
