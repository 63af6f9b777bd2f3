from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.workflow.graph.loading import graph_of_text, load_graph
from llm_trader.workflow.graph.model import GraphText
from llm_trader.workflow.graph.problems import GraphError
from llm_trader.workflow.nodes.running import ScriptContext
from llm_trader.workflow.nodes.scripts import SCRIPTS
from tests.workflow.graphs import changed, shipped


class Doubled(msgspec.Struct):
    number: float


class Number(msgspec.Struct):
    number: float


def double(inputs: Number, context: ScriptContext) -> Doubled:
    return Doubled(inputs.number * 2)


def untyped(inputs, context):  # type: ignore[no-untyped-def]
    return inputs


def _problem(*changes: tuple[str, str]) -> str:
    with pytest.raises(GraphError) as caught:
        changed(*changes)
    return caught.value.message


def test_the_shipped_graph_runs_from_the_snapshot_to_the_order() -> None:
    graph = shipped()
    names = [node.name for node in graph.nodes]
    assert names == ["receive", "rag", "prompt", "baseline", "decide", "guard", "execute"]
    assert set(graph.text.files) == {"main.yml", "nodes/rag-query.yml"}


def test_a_stored_graph_is_the_same_as_the_one_of_the_files() -> None:
    graph = shipped()
    stored = msgspec.json.decode(msgspec.json.encode(graph.text), type=GraphText)
    again = graph_of_text(stored, SCRIPTS)
    assert again.digest == graph.digest
    assert [node.document for node in again.nodes] == [node.document for node in graph.nodes]


def test_any_change_of_any_file_changes_the_digest() -> None:
    assert changed(("top_k: 5", "top_k: 6")).digest != shipped().digest
    assert changed(("timeout: 45000", "timeout: 45001")).digest != shipped().digest


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        (("type: input", "type: inptu"), "main.yml:8:5", "there is no type 'inptu'"),
        (("type: llm", "typ: llm"), "main.yml:30:5", "type is required"),
        (("timeout: 600000", "timeout: 0"), "main.yml:33:5", "timeout expected int >= 1"),
        (("timeout: 600000", "timeuot: 1"), "main.yml:33:5", "timeuot is not known (did you mean"),
        (("name: guard", "name: decide"), "main.yml:41:5", "decide is also the name of a node"),
        (("port: 7879", "port: 78790"), "rag-query.yml:13:5", "config.rpc.port expected int <="),
        (("top_k: 5", "top_k: 51"), "rag-query.yml:18:5", "top_k expected int <= 50"),
        (("top_k: 5", "detail: brief"), "rag-query.yml:18:5", "more than a brief answer"),
        (("top_k: 5", "stop_pct: 2"), "rag-query.yml:16:3", "a stop without a target"),
        (("function: format_prompt", "function: nothing"), "main.yml:18:5", "no script 'nothing'"),
        (("nodes/rag-query.yml", "nodes/rag.yml"), "main.yml:13:5", "rag.yml"),
        (("nodes/rag-query.yml", "../secret.yml"), "main.yml:13:5", "in the folder of the graph"),
        (("to: guard}", "to: gaurd}"), "main.yml:64:20", "did you mean guard?"),
        (("to: guard}", "to: guard, if: x}"), "main.yml:64:31", "if is not known"),
        (("name: llm-trader", "name: LLM Trader"), "main.yml:3:1", "name expected str matching"),
        (("nodes:", "nodes: *others\nnodos:"), "main.yml:6:8", "this is not YAML"),
        (("  top_k: 5", "  top_k: 5\n   bad"), "rag-query.yml:19", "this is not YAML"),
        (("  top_k: 5", "  top_k: 5\n    top_k: 6"), "rag-query.yml:19:5", "stands here twice"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_column(
    change: tuple[str, str], place: str, reason: str
) -> None:
    message = _problem(change)
    assert place in message
    assert reason in message


def test_all_mistakes_are_named_at_once() -> None:
    message = _problem(("timeout: 600000", "timeout: 0"), ("port: 7879", "port: x"))
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("${rag.error.message}", "${rag.error.reason}"), "rag.error has no field reason"),
        (("${receive.output.snapshot}", "${receive.output.snapshto}"), "did you mean snapshot?"),
        (("${receive.output.symbol}", "${recieve.output.symbol}"), "did you mean receive?"),
        (("${receive.output.symbol}", "${receive.output.as_of_ms}"), "is text, but this gives a"),
        (("${receive.output.symbol}", "${receive.output.symbol.base}"), "has no fields"),
        (("${receive.output.symbol}", "${receive.symbol}"), "is no reference"),
        (("${receive.output.symbol}", "x${receive.output.symbol}"), "mixes text and references"),
        (("${receive.output.symbol}", "${guard.output.decision}"), "guard does not run before rag"),
        (("${receive.output.symbol}", "[1]"), "symbol of rag: expected `str`, got `array`"),
        (("outputs: [answer,", "outputs: ["), "rag does not list answer among its outputs"),
        (("outputs: [answer,", "outputs: [answers,"), "rag gives no answers"),
        (("      snapshot: ${receive.output.snapshot}\n", ""), "prompt needs an input snapshot"),
        (
            ("      snapshot: ${receive.output.snapshot}\n", "      snapshto: 1\n"),
            "prompt takes no input snapshto; did you mean snapshot?",
        ),
        (
            ("${prompt.output ?? baseline.output}", "${prompt.output}"),
            "prompts of decide would be unknown where rag fails",
        ),
        (
            ("${prompt.output ?? baseline.output}", "${baseline.output}"),
            "prompts of decide would be unknown in a run without failures",
        ),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(change: tuple[str, str], reason: str) -> None:
    assert reason in _problem(change)


def test_a_fallback_without_an_error_branch_is_refused() -> None:
    message = _problem(("to: baseline, on: error}", "to: baseline}"))
    assert "rag-query.yml:28:1: onError of rag is fallback, but no edge" in message


def test_an_error_branch_that_is_never_taken_is_refused() -> None:
    message = _problem(("onError: fallback", "onError: stop"))
    assert "this edge would never be taken: onError of rag is stop" in message


def test_a_node_that_goes_on_after_an_error_gives_an_unknown_output() -> None:
    change = (
        ("onError: fallback", "onError: continue"),
        ("  - {from: rag, to: baseline, on: error}\n", "  - {from: rag, to: baseline}\n"),
    )
    graph = changed(*change)  # `answer` may be unknown, and `prompts` is known either way
    assert graph.nodes[1].document.on_error == "continue"
    message = _problem(*change, ("answer: ${rag.output.answer}", "snapshot: ${rag.output.answer}"))
    assert "snapshot stands here twice" in message


def test_edges_in_a_circle_are_refused() -> None:
    assert "edges lead in a circle" in _problem(
        (
            "  - {from: decide, to: guard}",
            "  - {from: decide, to: guard}\n  - {from: guard, to: rag}",
        )
    )


def test_a_node_that_no_edge_leads_to_is_refused() -> None:
    assert "no edge leads to execute" in _problem(("  - {from: guard, to: execute}\n", ""))


def test_nothing_is_executed_that_no_guard_has_checked() -> None:
    message = _problem(("${guard.output.decision}", "${decide.output.decision}"))
    assert "decision must come from a node of the type guard" in message


def test_a_graph_executes_once() -> None:
    second = """
  - name: again
    type: execute
    inputs: {decision: "${guard.output.decision}", snapshot: "${receive.output.snapshot}"}

edges:
  - {from: guard, to: again}
"""
    assert "only one node of a graph may execute" in _problem(("\nedges:\n", second))


def test_a_script_of_ones_own_is_called_by_its_module() -> None:
    name = f"{__name__}:double"
    graph = changed(
        (
            "\nedges:\n",
            f"""
  - name: doubled
    type: script
    function: {name}
    inputs: {{number: "${{receive.output.snapshot.price ?? receive.output.as_of_ms}}"}}

edges:
  - {{from: receive, to: doubled}}
""",
        )
    )
    assert graph.nodes[-1].signature.output is Doubled
    with pytest.raises(GraphError, match="should be a function"):
        changed(("function: format_prompt", f"function: {__name__}:untyped"))
    with pytest.raises(GraphError, match="cannot be imported"):
        changed(("function: format_prompt", "function: no_such_module:f"))


@pytest.mark.parametrize(
    "content", ["", "[]", "text", "a: [", "\x00", "- a\n- b", "a: !!python/x b"]
)
def test_files_that_are_no_graph_are_refused_with_their_place(tmp_path: Path, content: str) -> None:
    path = tmp_path / "main.yml"
    path.write_text(content)
    with pytest.raises(GraphError, match=r"main.yml:\d+:\d+"):
        load_graph(path, SCRIPTS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yml cannot be read"):
        load_graph(tmp_path / "none.yml", SCRIPTS)


def test_words_that_other_yaml_takes_for_truth_are_text() -> None:
    message = _problem(("retryOnFail: true", "retryOnFail: yes"))
    assert "retryOnFail expected bool, got str" in message
