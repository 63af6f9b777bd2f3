from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from llm_trader.workflow.graph.document import graph_schema, node_schema
from llm_trader.workflow.graph.yaml_text import parse_yaml
from tests.workflow.graphs import shipped


def _parsed(name: str) -> Any:
    parsed, problems = parse_yaml(shipped().text.files[name], name)
    assert parsed is not None, problems
    return parsed.value


def test_the_schemas_for_editors_accept_the_shipped_files() -> None:
    jsonschema.validate(_parsed("main.yml"), graph_schema())
    jsonschema.validate(_parsed("nodes/rag-query.yml"), node_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": 0},
        {"timeuot": 1},
        {"onError": "ignore"},
        {"type": "tol"},
        {"name": "Rag"},
        {"config": {"rpc": {"method": "rag.query_patterns"}, "query": {"top_k": 51}}},
        {"config": {"rpc": {"method": "rag.stats"}}},
        {"config": {}},
    ],
)
def test_the_schemas_for_editors_refuse_what_loading_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_parsed("nodes/rag-query.yml") | change, node_schema())
