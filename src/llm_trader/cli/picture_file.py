"""Writes the picture of an answer: as SVG, as PNG, or as a page of HTML."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_trader.cli.browser import open_in_browser
from llm_trader.cli.picture_svg import answer_svg
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.storage.files import write_all_atomically, write_errors

if TYPE_CHECKING:
    from llm_trader.app.queries import Reply

_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    "<style>body{{margin:0;background:#fff}}svg{{width:100%;height:auto;max-height:100vh}}</style>"
    "{svg}</html>\n"
)
# Twice its size, for screens of today.
_ZOOM: Final = 2.0
KINDS: Final = (".png", ".svg", ".html")


def check_picture(path: Path) -> None:
    """Raises before a query is sent for nothing."""
    if path.suffix.lower() not in KINDS:
        raise InvalidInputError(
            f"--plot {path}: the name must end with {', '.join(KINDS)}, which says what to write"
        )
    if path.suffix.lower() == ".png":
        _renderer()


def write_picture(reply: Reply, path: Path) -> None:
    svg, kind = answer_svg(reply), path.suffix.lower()
    if kind == ".png":
        content = _png(svg)
    elif kind == ".html":
        content = _PAGE.format(title=reply.symbol, svg=svg).encode()
    else:
        content = svg.encode()
    with write_errors(path.parent):
        write_all_atomically(path.parent, {path.name: lambda part: _write(part, content)})


def show_picture(reply: Reply, path: Path | None) -> str:
    """Opens the picture, which is a new file without a path; returns what to tell a person."""
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="llm-trader-")) / f"{reply.symbol}.html"
        write_picture(reply, path)
    opened = open_in_browser(path.resolve().as_uri())
    return f"The picture is in {path}" + ("." if opened else "; there is no browser to show it in.")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _png(svg: str) -> bytes:
    return _renderer()(svg_string=svg, zoom=_ZOOM)


def _renderer() -> Callable[..., bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ConfigurationError(
            f"PNG needs resvg ({error}): pip install 'llm-trader-rag[plot]', or write .svg or .html"
        ) from error
    render: Callable[..., bytes] = svg_to_bytes
    return render
