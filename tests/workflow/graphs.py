"""Graphs for tests: the shipped one, and changes of it."""

from __future__ import annotations

from pathlib import Path

from llm_trader.workflow.graph.loading import graph_of_text, load_graph
from llm_trader.workflow.graph.model import Graph, GraphText
from llm_trader.workflow.nodes.scripts import SCRIPTS

MAIN = Path(__file__).parents[2] / "workflows/llm-trader/main.yml"


def shipped() -> Graph:
    return load_graph(MAIN, SCRIPTS)


def changed(*changes: tuple[str, str]) -> Graph:
    """The shipped graph with pieces of its files replaced; each must be there."""
    text = shipped().text
    files = dict(text.files)
    for old, new in changes:
        name = next(name for name, content in files.items() if old in content)
        files[name] = files[name].replace(old, new, 1)
    return graph_of_text(GraphText(text.main, files), SCRIPTS)
