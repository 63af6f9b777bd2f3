"""`llm-trader keys`: the API keys of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, line, table
from llm_trader.timeframe import DAY_MS, Millis, parse_time

if TYPE_CHECKING:
    from llm_trader.app.keys import CreatedKey, ListedKey

app = typer.Typer(
    no_args_is_help=True, help="API keys of a server: create them, list them, revoke them."
)


@app.command()
@with_job("keys_file")
def create(
    job: Job,
    name: Annotated[str, Argument(help="Whom the key is for, such as desk or rag-worker-2.")],
    scopes: Annotated[
        str, Option(help="What it may be used for: query, subscribe, ingest, admin; with commas.")
    ] = "query",
    expires: Annotated[
        str, Option(help="When it ends: a number of days from now, RFC 3339, or never.")
    ] = "never",
) -> Result:
    """Make an API key and show it, this once.

    The file keeps only its SHA-256, so a lost key cannot be shown again: revoke it and make
    another. A running server accepts the key within a second.
    """
    from llm_trader.app.keys import create_key

    words = [word.strip() for word in scopes.split(",") if word.strip()]
    created = create_key(job, name, words, _end_ms(expires, job.now_ms))
    return Result(created, _describe_created(created))


@app.command("list")
@with_job("keys_file")
def list_keys(job: Job) -> Result:
    """List the keys of the file; the keys themselves are not in it."""
    from llm_trader.app.keys import list_keys as listed

    found = listed(job)
    return Result(found.keys, [_key_table(f"Keys of {found.path}", found.keys)])


@app.command()
@with_job("keys_file")
def revoke(
    job: Job, name: Annotated[str, Argument(help="Name or id of the key, as `keys list` shows it.")]
) -> Result:
    """Revoke a key. A running server refuses it within a second, on open connections too."""
    from llm_trader.app.keys import revoke_keys

    revoked = revoke_keys(job, name)
    return Result(revoked, [_key_table("Revoked", revoked)])


def _end_ms(text: str, now_ms: Millis) -> Millis | None:
    if text == "never":
        return None
    return now_ms + int(text) * DAY_MS if text.isdecimal() and len(text) < 6 else parse_time(text)


def _describe_created(created: CreatedKey) -> Description:
    yield line("This is the key. It is shown only now, so keep it where secrets are kept:")
    yield line("")
    yield line(created.token)
    yield line("")
    yield _key_table(f"Added to {created.keys_file}", [created.key])


def _key_table(title: str, keys: list[ListedKey]) -> Table:
    rows = (
        (
            *(k.id, k.name, ", ".join(k.scopes), k.status),
            *(k.created, k.expires or "never", k.revoked or ""),
        )
        for k in keys
    )
    columns = "id", "name", "scopes", "status", "created", "expires", "revoked"
    return table(title, *columns, rows=rows, right_from=len(columns))
