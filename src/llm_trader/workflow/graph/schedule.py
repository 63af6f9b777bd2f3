"""Which nodes run: a node runs if one of the edges to it was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from llm_trader.workflow.graph.document import Edge, InputNode, NodeDocument

Status = Literal["done", "failed", "skipped"]


def runs(
    node: NodeDocument,
    incoming: tuple[Edge, ...],
    nodes: Mapping[str, NodeDocument],
    statuses: Mapping[str, Status],
    method: str,
) -> bool:
    """Whether a node runs, once all nodes before it have a status. `method` began the run."""
    if isinstance(node, InputNode):
        return node.config.method == method
    return any(_taken(edge, nodes[edge.source], statuses[edge.source]) for edge in incoming)


def _taken(edge: Edge, source: NodeDocument, status: Status) -> bool:
    if status == "done":
        return edge.on == "success"
    if status == "failed":
        wanted = {"fallback": "error", "continue": "success"}.get(source.on_error)
        return edge.on == wanted
    return False
