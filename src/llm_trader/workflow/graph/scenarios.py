"""Every way in which a run can go: which nodes run where others fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from llm_trader.workflow.graph.document import Edge, InputNode, NodeDocument
from llm_trader.workflow.graph.schedule import Status, runs

# 1024 scenarios of twenty nodes take a few milliseconds.
MOST_FALLIBLE: Final = 10

Scenario = Mapping[str, Status]


def fallible(nodes: Sequence[NodeDocument]) -> list[str]:
    """The nodes whose failure does not end the run."""
    return [node.name for node in nodes if node.on_error != "stop"]


def scenarios(
    ordered: Sequence[NodeDocument], incoming: Mapping[str, tuple[Edge, ...]]
) -> Iterator[Scenario]:
    """The status of each node in each case; the one without failures is first."""
    by_name = {node.name: node for node in ordered}
    methods = dict.fromkeys(node.config.method for node in ordered if isinstance(node, InputNode))
    names = fallible(ordered)
    for method in methods:
        for count in range(len(names) + 1):
            for failing in combinations(names, count):
                statuses: dict[str, Status] = {}
                for node in ordered:
                    if not runs(node, incoming[node.name], by_name, statuses, method):
                        statuses[node.name] = "skipped"
                    else:
                        statuses[node.name] = "failed" if node.name in failing else "done"
                yield statuses


def describe(scenario: Scenario) -> str:
    """When it happens, as the end of a sentence."""
    failed = [name for name, status in scenario.items() if status == "failed"]
    return f"where {' and '.join(failed)} fails" if failed else "in a run without failures"
