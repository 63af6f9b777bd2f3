"""`llm-trader audit`: whether the log of requests is what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, line, table

if TYPE_CHECKING:
    from llm_trader.storage.chain.lines import AnyKind
    from llm_trader.storage.chain.verification import ChainsReport

app = typer.Typer(no_args_is_help=True, help="The audit log of a server: verify it.")


@app.callback()
def _group() -> None:
    pass


@app.command()
@with_job("audit_folder")
def verify(
    job: Job,
    expect: Annotated[
        list[str] | None,
        Option(help="Hash of a line that must be there, kept from an earlier run; repeatable."),
    ] = None,
) -> Result:
    """Find lines of the audit log that were changed, removed, moved or cut off.

    Reads all files, also while a server writes. The hash of the last line names everything up to
    it: keep it on another machine, and give it with --expect later, because whoever may write to
    the folder could make the whole log anew. Exits with 1 if anything was found.
    """
    from llm_trader.audit.log import AUDIT
    from llm_trader.errors import ConfigurationError
    from llm_trader.storage.chain.verification import verify as verify_chains

    folder = job.settings.audit.folder
    if folder is None:
        raise ConfigurationError(
            "no audit log is set; name its folder with --audit-folder or the setting audit.folder"
        )
    report = verify_chains(AUDIT, folder, tuple(expect or ()))
    return Result(report, describe_chains(report, AUDIT), not report.passed)


def describe_chains(report: ChainsReport, kind: AnyKind) -> Description:
    rows = (
        (c.chain, c.files, f"{c.lines:,}", c.first_time, c.last_time, c.lost_lines, c.torn_lines)
        for c in report.chains
    )
    names = "chain", "files", "lines", "first", "last", "lost", "torn"
    yield table(f"{kind.words.capitalize()} {report.folder}", *names, rows=rows)
    for chain in report.chains:
        for found in chain.problems:
            where = found.file if found.line is None else f"{found.file}, line {found.line}"
            yield line(f"{where}: {found.problem}")
        if chain.last_hash is not None:
            yield line(f"chain {chain.chain}, line {chain.last_seq} has the hash {chain.last_hash}")
    for digest in report.not_found:
        yield line(f"no line has the hash {digest}")
    if report.passed:
        yield line("nothing was changed, removed, moved or cut off")
