"""The report as one HTML file that needs no network: templates, a stylesheet, Plotly's script.

Text and tables need no JavaScript.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.report import formats, wording
from llm_trader.evaluation.report.view_model import ReportView
from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.evaluation.verdict.verdicts import verdict_variant
from llm_trader.retrieval.calibration import BAND_LEVEL

# Plotly's script names map servers and fonts; addresses in licences and XML namespaces stay.
# The page's content security policy, which fetches nothing, is the second wall.
_ADDRESS: Final = re.compile(r"([\"'`])https?://(?!www\.w3\.org/)[\w.-]+\.[a-z]+[^\"'`<>]*")
# Templates write a form of numbers as a filter or as a call, and pass one to a macro by its name.
_FORMS: Final = {
    name: form
    for module in (formats, wording)
    for name, form in vars(module).items()
    if callable(form) and name.islower()
}


_CONSTANTS: Final = {
    "DASH": formats.DASH,
    "DISTRUST": wording.DISTRUST,
    "FEW_TRADES": wording.FEW_TRADES,
    "BAND_LEVEL": BAND_LEVEL,
    "SIGNIFICANCE_LEVEL": SIGNIFICANCE_LEVEL,
    "is_same": wording.is_same,
    "verdict_variant": verdict_variant,
}


def write_report(metrics: Metrics, path: Path) -> None:
    """Raises ConfigurationError where the `eval` extra is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigurationError(
            f'a report needs jinja2 and plotly ({error}): pip install "llm-trader-rag[eval]"'
        ) from error
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
    environment.filters |= _FORMS
    environment.globals |= _FORMS | _CONSTANTS
    resources = files("llm_trader.evaluation.report")
    page = environment.get_template("page.html.j2").render(
        view=ReportView(metrics),
        metrics=metrics,
        style=(resources / "report.css").read_text(encoding="utf-8"),
        script=(resources / "report.js").read_text(encoding="utf-8"),
        plotly=_ADDRESS.sub(r"\1about:invalid", get_plotlyjs()),
    )
    path.write_text(page, encoding="utf-8")
