"""The shape of a graph's files. Names are those that users of n8n know."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from llm_trader.retrieval.search_spec import SearchSpec

NODE_NAME: Final = r"^[a-z][a-z0-9_]{0,39}$"
OnError = Literal["stop", "continue", "fallback"]
Method = Literal["snapshot.post", "ingest.push"]
Verdict = Literal["informative", "weak", "none"]

Name = Annotated[
    str, Meta(pattern=NODE_NAME, description="Small letters, digits and _, such as rag_query.")
]


class NodeDocument(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", tag_field="type"
):
    """What all nodes have. Times are milliseconds."""

    name: Name
    description: Annotated[str | None, Meta(description="Shown in drawings and lists.")] = None
    inputs: Annotated[
        dict[str, Any],
        Meta(
            description="By name: a reference such as ${receive.output.snapshot}, several of which "
            "the first that is known counts (${a.output.b ?? c.output.d}), or a value."
        ),
    ] = {}
    outputs: Annotated[
        list[str] | None,
        Meta(description="The outputs that other nodes may refer to; all, where it is left out."),
    ] = None
    timeout: Annotated[
        int,
        Meta(ge=1, le=3_600_000, description="Milliseconds for one attempt."),
    ] = 60_000
    retry_on_fail: Annotated[bool, Meta(description="Try again when an attempt fails.")] = False
    max_tries: Annotated[
        int, Meta(ge=2, le=20, description="Attempts in all, with retryOnFail.")
    ] = 3
    wait_between_tries: Annotated[
        int, Meta(ge=0, le=600_000, description="Milliseconds between two attempts.")
    ] = 1000
    on_error: Annotated[
        OnError,
        Meta(
            description="When all attempts failed: `stop` ends the run; `continue` goes on without "
            "the node's output; `fallback` goes on along the edges with `on: error`."
        ),
    ] = "stop"

    @property
    def attempts(self) -> int:
        return self.max_tries if self.retry_on_fail else 1


class InputConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    method: Annotated[Method, Meta(description="The call that begins a run at this node.")]
    every: Annotated[
        Annotated[str, Meta(pattern="^[1-9][0-9]{0,3}[mh]$")] | None,
        Meta(
            description="`workflow serve` also takes snapshots of its own market store so often, "
            "such as 15m."
        ),
    ] = None


class RpcConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server is; the setting workflow.runs.rag_url takes the place of host and port."""

    host: Annotated[str, Meta(min_length=1, description="Host of the server.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Its TCP port.")] = 7879
    method: Annotated[Literal["rag.query_patterns"], Meta(description="Method that is called.")]
    timeout_ms: Annotated[
        int, Meta(ge=1, le=600_000, description="Milliseconds for the call, its retries included.")
    ] = 5000


class ToolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query, and what its answer must have; otherwise the node fails, and says so."""

    rpc: RpcConfig
    query: Annotated[dict[str, Any], Meta(description="The `query_config` of the call.")] = {}
    min_matches: Annotated[
        int, Meta(ge=0, le=1000, description="The node fails with fewer matches.")
    ] = 1
    verdicts: Annotated[
        tuple[Verdict, ...],
        Meta(
            min_length=1,
            description="The node fails with another verdict of the evidence; leave out `none` "
            "to decide without evidence that says nothing.",
        ),
    ] = ("informative", "weak", "none")


class NoConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings hold what such a node needs."""


class InputNode(NodeDocument, frozen=True, kw_only=True, tag="input"):
    """Where a run begins."""

    config: InputConfig


class ToolNode(NodeDocument, frozen=True, kw_only=True, tag="tool"):
    """Asks another program."""

    config: ToolConfig


class ScriptNode(NodeDocument, frozen=True, kw_only=True, tag="script"):
    """Calls a Python function: the name of a registered one, or `package.module:function`."""

    function: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]


class LlmNode(NodeDocument, frozen=True, kw_only=True, tag="llm"):
    """Asks the decider of the settings: a model, or the aggregator."""

    config: NoConfig = NoConfig()


class GuardNode(NodeDocument, frozen=True, kw_only=True, tag="guard"):
    """Checks a decision against the limits of the settings; a veto is a HOLD."""

    config: NoConfig = NoConfig()


class ExecuteNode(NodeDocument, frozen=True, kw_only=True, tag="execute"):
    """Carries a decision out with the broker of the settings."""

    config: NoConfig = NoConfig()


NODE_TYPES: Final[dict[str, type[NodeDocument]]] = {
    "input": InputNode,
    "tool": ToolNode,
    "script": ScriptNode,
    "llm": LlmNode,
    "guard": GuardNode,
    "execute": ExecuteNode,
}
AnyNode = InputNode | ToolNode | ScriptNode | LlmNode | GuardNode | ExecuteNode


class Edge(Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A node begins when all edges to it are settled, if one of them at least was taken."""

    source: Annotated[str, Meta(description="Name of a node.")]
    to: Annotated[str, Meta(description="Name of a node.")]
    on: Annotated[
        Literal["success", "error"],
        Meta(description="`error`: taken when the node fails and its onError is fallback."),
    ] = "success"


class GraphDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph. A node may stand in a file of its own: `- file: nodes/rag-query.yml`."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9-]{0,39}$",
            description="Small letters, digits and -. A snapshot is decided once per name.",
        ),
    ]
    description: str | None = None
    nodes: Annotated[list[Any], Meta(min_length=1, description="Its nodes.")]
    edges: Annotated[list[Edge], Meta(description="What follows what.")] = []


def node_schema() -> dict[str, Any]:
    """JSON Schema of a file with one node."""
    schema = msgspec.json.schema(AnyNode)
    schema["$defs"]["ToolConfig"]["properties"]["query"] = _query_schema()
    return {"$schema": _DRAFT, "title": "A node of a workflow", **schema}


def graph_schema() -> dict[str, Any]:
    """JSON Schema of a graph's main file."""
    schema = msgspec.json.schema(GraphDocument)
    node = node_schema()
    file = {
        "type": "object",
        "properties": {"file": {"type": "string", "description": "Path from this file."}},
        "required": ["file"],
        "additionalProperties": False,
    }
    definitions = {**schema["$defs"], **node["$defs"]}
    definitions["GraphDocument"]["properties"]["nodes"]["items"] = {"anyOf": [*node["anyOf"], file]}
    return {
        "$schema": _DRAFT,
        "title": "A workflow",
        "$ref": "#/$defs/GraphDocument",
        "$defs": definitions,
    }


_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def _query_schema() -> dict[str, Any]:
    schema = msgspec.json.schema(SearchSpec)
    (definition,) = schema["$defs"].values()
    return {**definition, "required": []}
