"""The evaluations in a folder of reports, by their metrics.json. Files of earlier runs stay out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from llm_trader.serving.page.files import REPORT

_METRICS: Final = "metrics.json"
# `reports`, `reports/compare` and `reports/2026-11/compare`, but not what was kept in `earlier`.
_DEPTHS: Final = ("", "*/", "*/*/")
_EARLIER: Final = "earlier"
_MOST: Final = 200


class _Origin(msgspec.Struct, frozen=True):
    symbols: list[str] = []
    start: str | None = None
    end: str | None = None


class _Metrics(msgspec.Struct, frozen=True):
    command: str
    created_at: str
    origin: _Origin = _Origin()
    readings: list[str] = []
    seconds: float | None = None


class Evaluation(msgspec.Struct, frozen=True):
    name: Annotated[
        str, Meta(description="Its folder, below the folder of reports; `.` is that folder.")
    ]
    command: Annotated[str | None, Meta(description="The command that made it.")]
    created_at: Annotated[str | None, Meta(description="When it was made, RFC 3339.")]
    symbols: Annotated[list[str], Meta(description="The symbols that were evaluated.")]
    start: Annotated[str | None, Meta(description="The first time of its data, RFC 3339.")]
    end: Annotated[str | None, Meta(description="The last time of its data, RFC 3339.")]
    readings: Annotated[
        list[str], Meta(description="What it found in words, most important first.")
    ]
    has_report: Annotated[bool, Meta(description="Whether it has a page: GET /reports/NAME.")]
    problem: Annotated[str | None, Meta(description="Why it cannot be read; null if it can.")]


class EvaluationsResult(msgspec.Struct, frozen=True):
    folder: Annotated[str, Meta(description="The folder of reports (serving.reports).")]
    evaluations: Annotated[list[Evaluation], Meta(description="Newest first, up to 200.")]


def list_evaluations(folder: Path) -> EvaluationsResult:
    found = [path for depth in _DEPTHS for path in folder.glob(f"{depth}{_METRICS}")]
    current = [path for path in found if _EARLIER not in path.relative_to(folder).parts]
    evaluations = [_evaluation(folder, path) for path in current[:_MOST]]
    evaluations.sort(key=lambda evaluation: evaluation.created_at or "", reverse=True)
    return EvaluationsResult(str(folder), evaluations)


def _evaluation(folder: Path, path: Path) -> Evaluation:
    name = path.parent.relative_to(folder).as_posix()
    has_report = (path.parent / REPORT).is_file()
    try:
        metrics = msgspec.json.decode(path.read_bytes(), type=_Metrics)
    except (OSError, msgspec.MsgspecError) as error:
        return Evaluation(name, None, None, [], None, None, [], has_report, str(error))
    origin = metrics.origin
    return Evaluation(
        *(name, metrics.command, metrics.created_at, origin.symbols, origin.start, origin.end),
        *(metrics.readings, has_report, None),
    )
