from __future__ import annotations

from xml.etree import ElementTree

from llm_trader.workflow.graph.drawing import svg_drawing, text_drawing
from tests.workflow.graphs import changed, shipped

_SVG = "{http://www.w3.org/2000/svg}"


def test_the_text_shows_every_node_with_where_it_leads() -> None:
    text = text_drawing(shipped())
    assert "rag  [tool rag.query_patterns]" in text
    assert "    ──▶ prompt\n    ╌╌▶ baseline  (when it fails)\n" in text
    assert "    prompts ← prompt.output ?? baseline.output\n" in text


def test_the_svg_has_a_box_for_each_node_and_a_line_for_each_edge() -> None:
    graph = shipped()
    root = ElementTree.fromstring(svg_drawing(graph))
    boxes = root.findall(f"{_SVG}g/{_SVG}rect")
    lines = root.findall(f"{_SVG}path")
    dashed = [line for line in lines if line.get("stroke-dasharray")]
    assert len(boxes) == len(graph.nodes)
    assert len(lines) == len(graph.edges)
    assert len(dashed) == 1
    places = [(int(box.attrib["x"]), int(box.attrib["y"])) for box in boxes]
    assert len(set(places)) == len(places)


def test_words_of_a_graph_are_only_text_in_its_drawing() -> None:
    graph = changed(("description: A snapshot of the market", "description: </g><script>&amp;"))
    root = ElementTree.fromstring(svg_drawing(graph))
    titles = [title.text or "" for title in root.findall(f"{_SVG}g/{_SVG}title")]
    assert any(title.startswith("</g><script>&amp;") for title in titles)
