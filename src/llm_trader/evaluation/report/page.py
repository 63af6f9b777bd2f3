"""The report as one HTML file that needs no network: templates, a stylesheet, Plotly's script.

Text and tables need no JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.decisions.results import ReadsMetrics
from llm_trader.evaluation.report import formats, reads_wording, wording
from llm_trader.evaluation.report.view_model import ReportView
from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.evaluation.verdict.verdicts import verdict_variant
from llm_trader.retrieval.calibration import BAND_LEVEL

if TYPE_CHECKING:
    from jinja2 import Environment

# Plotly's script names map servers and fonts; addresses in licences and XML namespaces stay.
# The page's content security policy, which fetches nothing, is the second wall.
_ADDRESS: Final = re.compile(r"([\"'`])https?://(?!www\.w3\.org/)[\w.-]+\.[a-z]+[^\"'`<>]*")
# Templates write a form of numbers as a filter or as a call, and pass one to a macro by its name.
_FORMS: Final = {
    name: form
    for module in (formats, wording, reads_wording)
    for name, form in vars(module).items()
    if callable(form) and name.islower()
}


# The sections, as the list of contents names them.
_TITLES: Final = {
    "origin": "what was evaluated",
    "skill": "skill",
    "ablation": "kinds of neighbours",
    "reliability": "probabilities",
    "direction": "direction",
    "coverage": "bands",
    "decisions": "decisions",
    "controls": "controls",
    "probes": "leak probes",
    "regimes": "regimes",
    "trials": "trials",
    "similarity": "similarity",
    "time": "over time",
}
_ARMS: Final = {
    "rag": "decides by what followed the neighbours",
    "baseline": "is the same decider on the base rate of the window alone",
    "random neighbours": "is the same decider on neighbours drawn at random, a placebo",
    "random": "takes the sides of rag, shifted to another time",
    "rsi-7": "buys when RSI(7) is low and sells when it is high",
    "macd-sign": "follows the sign of the MACD line",
    "hold": "buys at the start and keeps",
}
_MODEL_ARMS: Final = {
    "rag": "is the language model with the evidence in its prompt",
    "baseline": "is the same model and prompt without the evidence",
    "rag masked": "is the first with neither the symbol nor its prices in the prompt",
    "baseline masked": "is the second, masked likewise",
}
_CONSTANTS: Final = {
    "DASH": formats.DASH,
    "DISTRUST": wording.DISTRUST,
    "FEW_TRADES": wording.FEW_TRADES,
    "BAND_LEVEL": BAND_LEVEL,
    "SIGNIFICANCE_LEVEL": SIGNIFICANCE_LEVEL,
    "is_same": wording.is_same,
    "verdict_variant": verdict_variant,
    "TITLES": _TITLES,
    "ARMS": _ARMS,
    "MODEL_ARMS": _MODEL_ARMS,
}


# A cell's opening tag, in the order of a row's columns.
_CELL: Final = re.compile(r"<(td|th scope=\"row\")>")
_ROW: Final = re.compile(r"<tr>.*?</tr>", re.DOTALL)


def labelled(rows: Any, head: Sequence[str]) -> Any:
    """The rows of a table with each cell's column in it, which narrow screens show beside it."""
    # A kind of text that is marked as safe HTML; `escape` is that of the same library.
    safe = type(rows)

    def with_labels(row: re.Match[str]) -> str:
        names = iter(head)
        return _CELL.sub(
            lambda cell: f'<{cell[1]} data-label="{safe.escape(next(names))}">', row[0]
        )

    return safe(_ROW.sub(with_labels, rows))


@cache
def _environment() -> Environment:
    """Made once: compiling the templates takes ten times as long as filling them in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("llm_trader.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # msgspec writes NaN as null, which is valid JSON; `tojson` makes the text safe in a script.
    environment.policies["json.dumps_function"] = lambda value, **_: msgspec.json.encode(
        value
    ).decode()
    environment.filters |= _FORMS | {"labelled": labelled}
    environment.globals |= _FORMS | _CONSTANTS
    return environment


def write_reads_report(metrics: ReadsMetrics, path: Path) -> None:
    """Raises ConfigurationError where the `eval` extra is not installed."""
    try:
        template = _environment().get_template("reads.html.j2")
    except ImportError as error:
        raise ConfigurationError(
            f'a report needs jinja2 ({error}): pip install "llm-trader-rag[eval]"'
        ) from error
    style = files("llm_trader.evaluation.report") / "report.css"
    page = template.render(
        metrics=metrics,
        style=style.read_text(encoding="utf-8"),
        ALTERATIONS=reads_wording.ALTERATIONS,
        HOLDS=reads_wording.HOLDS,
        cells=reads_wording.cells,
    )
    path.write_text(page, encoding="utf-8")


def write_report(metrics: Metrics, path: Path) -> None:
    """Raises ConfigurationError where the `eval` extra is not installed."""
    try:
        from plotly.offline import get_plotlyjs

        environment = _environment()
    except ImportError as error:
        raise ConfigurationError(
            f'a report needs jinja2 and plotly ({error}): pip install "llm-trader-rag[eval]"'
        ) from error
    resources = files("llm_trader.evaluation.report")
    page = environment.get_template("page.html.j2").render(
        view=ReportView(metrics),
        metrics=metrics,
        style=(resources / "report.css").read_text(encoding="utf-8"),
        script=(resources / "report.js").read_text(encoding="utf-8"),
        plotly=_ADDRESS.sub(r"\1about:invalid", get_plotlyjs()),
    )
    path.write_text(page, encoding="utf-8")
