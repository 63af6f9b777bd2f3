"""A graph as text for a terminal, and as SVG for a page. Both show the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from llm_trader.workflow.graph.document import InputNode, NodeDocument, ScriptNode, ToolNode
from llm_trader.workflow.graph.model import Graph, GraphNode

_BOX_W: Final = 190
_BOX_H: Final = 54
_GAP_X: Final = 40
_GAP_Y: Final = 46
_MARGIN: Final = 20
_LABEL_CHARS: Final = 28
_COLOURS: Final = {
    "input": "#dbeafe",
    "tool": "#dcfce7",
    "script": "#f3f4f6",
    "llm": "#ede9fe",
    "guard": "#fef3c7",
    "execute": "#fee2e2",
}


def text_drawing(graph: Graph) -> str:
    """The nodes in the order in which they run, each with where it leads and what it takes."""
    lines = [f"{graph.name} ({graph.digest})"]
    if graph.description:
        lines.append(f"  {graph.description}")
    for node in graph.nodes:
        lines += ["", f"{node.name}  [{_label(node.document)}]"]
        lines += [f"    {line}" for line in _details(node)]
        for edge in graph.edges:
            if edge.source == node.name:
                arrow = "──▶" if edge.on == "success" else "╌╌▶"
                when = "" if edge.on == "success" else "  (when it fails)"
                lines.append(f"    {arrow} {edge.to}{when}")
    return "\n".join(lines) + "\n"


def svg_drawing(graph: Graph) -> str:
    """Layers from top to bottom; edges of errors are dashed and red."""
    places = _places(graph)
    width = max(x for x, _ in places.values()) + _BOX_W + _MARGIN
    height = max(y for _, y in places.values()) + _BOX_H + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(graph.name)} {graph.digest}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="context-stroke"/>'
        "</marker></defs>",
        *_edges(graph, places),
        *(_box(node, places[node.name]) for node in graph.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _label(node: NodeDocument) -> str:
    kind = str(type(node).__struct_config__.tag)
    if isinstance(node, InputNode):
        return f"{kind} {node.config.method}"
    if isinstance(node, ToolNode):
        return f"{kind} {node.config.rpc.method}"
    return f"{kind} {node.function}" if isinstance(node, ScriptNode) else kind


def _details(node: GraphNode) -> Iterator[str]:
    document = node.document
    if document.description:
        yield document.description
    tries = f", {document.attempts} tries" if document.attempts > 1 else ""
    yield f"timeout {document.timeout} ms{tries}, on error {document.on_error}"
    for name, binding in node.bindings.items():
        sources = " ?? ".join(map(str, binding.references)) or repr(binding.constant)
        yield f"{name} ← {sources}"


def _places(graph: Graph) -> Mapping[str, tuple[int, int]]:
    """The left upper corner of each box; a node stands below all that lead to it."""
    layers: dict[str, int] = {}
    for node in graph.nodes:
        above = [layers[edge.source] for edge in graph.incoming[node.name]]
        layers[node.name] = max(above, default=-1) + 1
    rows: dict[int, list[str]] = {}
    for name, layer in layers.items():
        rows.setdefault(layer, []).append(name)
    widest = max(map(len, rows.values()))
    places = {}
    for layer, names in rows.items():
        indent = (widest - len(names)) * (_BOX_W + _GAP_X) // 2
        for i, name in enumerate(names):
            x = _MARGIN + indent + i * (_BOX_W + _GAP_X)
            places[name] = (x, _MARGIN + layer * (_BOX_H + _GAP_Y))
    return places


def _edges(graph: Graph, places: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for edge in graph.edges:
        (x1, y1), (x2, y2) = places[edge.source], places[edge.to]
        x1, x2, y1 = x1 + _BOX_W // 2, x2 + _BOX_W // 2, y1 + _BOX_H
        bend = (y2 - y1) // 2
        style = 'stroke="#374151"'
        if edge.on == "error":
            style = 'stroke="#b91c1c" stroke-dasharray="5 4"'
        yield (
            f'<path d="M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" fill="none" '
            f'{style} stroke-width="1.5" marker-end="url(#tip)"/>'
        )


def _box(node: GraphNode, place: tuple[int, int]) -> str:
    x, y = place
    document = node.document
    label = _label(document)
    shown = label if len(label) <= _LABEL_CHARS else f"{label[: _LABEL_CHARS - 1]}…"
    hint = escape(document.description or label)
    middle = x + _BOX_W // 2
    colour = _COLOURS[str(type(document).__struct_config__.tag)]
    return (
        f'<g><title>{hint}</title><rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" '
        f'rx="8" fill="{colour}" stroke="#374151"/>'
        f'<text x="{middle}" y="{y + 23}" text-anchor="middle" font-weight="bold">'
        f"{escape(node.name)}</text>"
        f'<text x="{middle}" y="{y + 41}" text-anchor="middle" fill="#374151">{escape(shown)}'
        "</text></g>"
    )
