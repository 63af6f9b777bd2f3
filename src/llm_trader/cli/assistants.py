"""`llm-trader mcp` and `llm-trader receipt`: tools for assistants, and proof of their answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer import Argument

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, line, table
from llm_trader.errors import InvalidInputError

if TYPE_CHECKING:
    from llm_trader.app.receipts import ReceiptReport

_DIFFERENCES_SHOWN: Final = 20
# Answers have some 10 KB.
_MAX_BYTES: Final = 1 << 22

receipt_app = typer.Typer(no_args_is_help=True, help="Receipts of answers: verify them.")


@receipt_app.callback()
def _group() -> None:
    pass


@with_job(
    *("store", "index", "qdrant_url", "record", "vector", "lookback_days", "calibration"),
    *("audit_folder", "log_level"),
    quiet=False,
)
def mcp(job: Job) -> None:
    """Answer an assistant that starts this program, by the Model Context Protocol.

    It speaks over standard input and output, and ends with the input. Its eight tools only read:
    similar_states, forecast, cohort_open, cohort_refine, cohort_rank, market_state, data_status and
    decisions. They answer from store and index, as a server would; no server needs to run. Needs
    the extra mcp. A server with --mcp answers the same at POST /mcp.
    """
    from llm_trader.app.assistants import serve_stdio

    serve_stdio(job, options.now_ms)


@receipt_app.command()
@with_job("store", "index", "qdrant_url", "calibration")
def verify(
    file: Annotated[
        str, Argument(help="JSON file of an answer or of its receipt; - for standard input.")
    ],
    job: Job,
) -> Result:
    """Make the answer of a receipt again, from store and index, and compare.

    Takes the structured content of a tool's answer, the whole result, or the receipt alone; with an
    answer it names the values that differ. An answer is another one if market data was corrected or
    added since, or if versions differ. Exits with 1 if the answer differs, or was changed.
    """
    from llm_trader.app.receipts import verify_receipt

    report = verify_receipt(job, _read(file))
    return Result(report, _describe(report), not report.passed)


def _read(file: str) -> bytes:
    if file == "-":
        document = sys.stdin.buffer.read(_MAX_BYTES + 1)
    else:
        try:
            with Path(file).open("rb") as opened:
                document = opened.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InvalidInputError(f"cannot read {file}: {error.strerror}") from error
    if len(document) > _MAX_BYTES:
        raise InvalidInputError(f"{file} has more than {_MAX_BYTES >> 20} MiB; it is no answer")
    return document


def _describe(report: ReceiptReport) -> Description:
    receipt = report.receipt
    yield line(f"{receipt.tool} with {_arguments(receipt.arguments)}")
    if report.outcome == "same":
        yield line(f"store and index give the same answer: {receipt.digest}")
    elif report.outcome == "not_kept":
        yield line(
            "the answer tells what a server held at that moment, which is not kept; the answer, "
            "where it was given, is the one of the receipt"
        )
    elif report.outcome == "changed":
        yield line(f"the answer was CHANGED after it was given: it is not {receipt.digest}")
    else:
        yield line(f"store and index give ANOTHER answer now{_why(report)}")
    if report.versions:
        rows = ((name, *pair) for name, pair in report.versions.items())
        yield table("Versions", "of", "then", "now", rows=rows)
    if report.differences:
        shown = report.differences[:_DIFFERENCES_SHOWN]
        rows = ((d.field, d.answered, d.now) for d in shown)
        yield table(
            f"{len(report.differences)} values differ", "value", "answered", "now", rows=rows
        )


def _arguments(arguments: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items()) or "no arguments"


def _why(report: ReceiptReport) -> str:
    if report.reason is not None:
        return f": {report.reason}"
    if report.versions:
        return "; versions differ"
    return "; market data was added or corrected since, or the receipt is not genuine"
