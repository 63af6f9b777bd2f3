"""Makes the JSON Schemas of parameters and results, and of what is posted to intakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.errors import ErrorObject
from llm_trader.rpc.params import NoParams
from llm_trader.serving.admin import ADMIN_METHODS
from llm_trader.serving.decisions import DECISION_METHODS
from llm_trader.serving.methods import METHODS
from llm_trader.serving.page.methods import PAGE_METHODS
from llm_trader.serving.subscriptions import SUBSCRIPTION_METHODS
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.graph.document import graph_schema, node_schema
from llm_trader.workflow.intake import PushParams, Receipt

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Their names were given before there were others.
_NAMES = {"rag.query_patterns": "rag-query"}


def schema_pages(note: str) -> dict[str, Callable[[], str]]:
    """The text of each file, by its path."""
    pages: dict[str, Callable[[], str]] = {}
    for name, title, kinds in _documents():
        pages[f"schemas/{name}.json"] = lambda title=title, kinds=kinds: _page(note, title, *kinds)
    # For editors of YAML, which read the address of a schema in the first line of a file.
    pages["schemas/workflow.json"] = lambda: _text({"$comment": note, **graph_schema()})
    pages["schemas/workflow-node.json"] = lambda: _text({"$comment": note, **node_schema()})
    return pages


def _documents() -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    methods = [*METHODS, *DECISION_METHODS, *PAGE_METHODS, *SUBSCRIPTION_METHODS, *ADMIN_METHODS]
    for method in with_builtin_methods(methods, title="", version=""):
        name = _NAMES.get(method.name) or method.name.replace(".", "-").replace("_", "-")
        yield f"{name}-request", f"Parameters of {method.name}", (_params_of(method),)
        results = (method.result_type, *method.other_results)
        yield f"{name}-response", f"Result of {method.name}", results
    yield "snapshot-post-request", "Parameters of snapshot.post", (SnapshotPost,)
    yield "snapshot-post-response", "Result of snapshot.post", (Receipt,)
    yield "ingest-push-request", "Parameters of ingest.push", (PushParams,)
    yield "ingest-push-response", "Result of ingest.push", (Receipt,)
    yield "market-snapshot", "The state of a market at a time", (MarketSnapshot,)
    yield "error", "The member error of a reply", (ErrorObject,)


def _params_of(method: Method) -> type[msgspec.Struct]:
    return method.params_type or NoParams


def _page(note: str, title: str, *kinds: Any) -> str:
    options, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    document = {
        "$schema": _DIALECT,
        "$comment": note,
        "title": title,
        **(options[0] if len(options) == 1 else {"anyOf": list(options)}),
        "$defs": definitions,
    }
    return _text(document)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
