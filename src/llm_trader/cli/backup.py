"""`llm-trader backup`: creates, lists, verifies and restores backups."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_trader.cli import options, show_backup
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Backups of the market store and the index: create, list, verify, restore.",
)

_FOLDER = Path("var/backups")
_MIB = 1 << 20

Name = Annotated[
    str, typer.Argument(help="Name of the backup, as `llm-trader backup list` shows it.")
]
From = Annotated[Path, typer.Option("--from", help="Folder that holds the backups.")]
Only = Annotated[
    Literal["market", "index"] | None,
    typer.Option("--only", help="Take one part only.", show_default=False),
]


@app.command()
@with_settings("store", "index", "qdrant_url")
def create(
    settings: Settings,
    to: Annotated[Path, typer.Option("--to", help="Folder that holds the backups.")] = _FOLDER,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the backup; by default the time.")
    ] = None,
    only: Only = None,
    json: options.Json = False,
) -> None:
    """Copy the market store and the index into a new folder.

    Servers and ingestions may run meanwhile: each copy shows one moment. On a Qdrant server, every
    node named in index.qdrant.node_urls makes a snapshot, which is downloaded and deleted there.
    Some queries to the index are recorded with their answers, so that verify and restore can
    prove that the answers stay the same. An interrupted backup is listed as unfinished and is
    never restored.
    """
    from llm_trader.app.backups import make_backup

    now_ms = options.now_ms()
    with progress_bar("MiB", _MIB) as progress:
        manifest = make_backup(settings, os.environ, to, name, now_ms, progress, only=only)
    present(manifest, json, lambda console, value: show_backup.created(console, value, to))


@app.command("list")
@with_settings()
def list_backups(settings: Settings, from_: From = _FOLDER, json: options.Json = False) -> None:
    """Show the backups of a folder with their time, contents and state."""
    from llm_trader.app.backups import list_backups as backups_in

    present(
        backups_in(from_), json, lambda console, value: show_backup.listed(console, value, from_)
    )


@app.command()
@with_settings()
def verify(
    settings: Settings, name: Name, from_: From = _FOLDER, json: options.Json = False
) -> None:
    """Check that a backup is complete, and that its copies open and answer.

    Compares all files with their SHA-256, opens and counts the copies, and sends the recorded
    queries to the index. Exits with 1 on any problem, naming the file. Snapshots of a
    Qdrant server are compared by digest only; restore checks their answers.
    """
    from llm_trader.app.backups import check_backup

    with progress_bar("MiB", _MIB) as progress:
        report = check_backup(from_, name, progress)
    present(report, json, show_backup.verified)
    if report.problems:
        raise typer.Exit(1)


@app.command()
@with_settings("store", "index", "qdrant_url")
def restore(
    context: typer.Context,
    settings: Settings,
    name: Name,
    from_: From = _FOLDER,
    only: Only = None,
    swap: Annotated[
        bool,
        typer.Option("--swap", help="Point a live Qdrant alias at the restored collection."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Restore a backup to empty folders, or to a new Qdrant collection.

    Everything is copied next to its destination and checked with the recorded queries before it
    is moved there; an interrupted restore leaves the destination empty. Nothing is ever
    overwritten: move an old folder away first. On a Qdrant server that is already live, --swap
    points the alias at the restored collection, and the old one stays until
    `llm-trader index prune`.
    """
    from llm_trader.app.backups import restore as restore_backup

    with progress_bar("MiB", _MIB) as progress:
        report = restore_backup(
            settings,
            os.environ,
            from_,
            name,
            progress,
            only=only,
            swap=swap,
            to_qdrant=bool(context.params["qdrant_url"]),
        )
    present(report, json, show_backup.restored)
