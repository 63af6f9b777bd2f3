"""The official SDK's server with our tools, whose schemas come from the structs of the wire.

The SDK's `MCPServer` makes schemas from the signatures of functions, by pydantic; what it is built
on, `Server`, takes the schemas that we have.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool

from llm_trader.rpc.admission import Session
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.errors import ErrorObject
from llm_trader.rpc.params import closest_name
from llm_trader.serving.mcp.calls import ToolCalls
from llm_trader.serving.mcp.tools import TOOLS, Tool

NAME: Final = "llm-trader"
# Where the door of HTTP puts the context of a request.
CONTEXT_KEY: Final = "llm_trader.context"

_NAMES: Final = tuple(tool.name for tool in TOOLS)
_READ_ONLY: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_INSTRUCTIONS: Final = (
    "When the market looked like this before, what followed, and how far can that be trusted? Ask "
    "data_status which symbols there are and how new their data is. forecast answers the question; "
    "similar_states shows the cases behind it. To look into a question, open a cohort, rank its "
    "conditions, and refine it; verdicts already allow for everything that could be asked. A "
    "verdict of none means that the past says nothing about this: say so, and do not look for "
    "another answer. Nothing here trades, and nothing is advice."
)


def mcp_server(calls: ToolCalls, version: str, session: Session | None = None) -> Server[Any]:
    """A server whose requests come by HTTP, or all belong to one `session`."""

    async def list_tools(
        context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=list(_listed_tools()))

    async def call_tool(
        context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        if params.name not in _NAMES:
            similar = closest_name(params.name, _NAMES)
            hint = f"did you mean {similar}?" if similar else f"there are {', '.join(_NAMES)}"
            raise MCPError(INVALID_PARAMS, f"no tool {params.name[:64]!r}; {hint}")
        request = context.request
        if session is None and request is not None:
            of_request: RequestContext = request.scope[CONTEXT_KEY]
        else:
            of_request = _context_in(session or Session(), calls)
        outcome = await calls.call(params.name, params.arguments or {}, of_request)
        return _result(outcome)

    return Server(
        NAME,
        version=version,
        title="LLM Trader RAG",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def answer_on_stdio(calls: ToolCalls, version: str) -> None:
    """Answers on standard input and output, until the input ends."""
    server = mcp_server(calls, version, Session(peer="stdio:0"))
    async with stdio_server() as (requests, replies):
        await server.run(requests, replies, server.create_initialization_options())


def _context_in(session: Session, calls: ToolCalls) -> RequestContext:
    deadline_s = time.monotonic() + calls.gate.config.request_deadline_s
    return RequestContext(session=session, deadline_s=deadline_s)


def _result(outcome: bytes | ErrorObject) -> CallToolResult:
    if isinstance(outcome, ErrorObject):
        # The model reads it, and can ask better.
        return CallToolResult(
            content=[TextContent(text=f"{outcome.message} (code {outcome.code})")], is_error=True
        )
    # Clients that do not know structured content read the text.
    return CallToolResult(
        content=[TextContent(text=outcome.decode())],
        structured_content=msgspec.json.decode(outcome),
    )


@cache
def _listed_tools() -> tuple[ListedTool, ...]:
    return tuple(map(_listed, TOOLS))


def _listed(tool: Tool) -> ListedTool:
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema_of(tool.arguments_type),
        output_schema=schema_of(tool.answer_type),
        annotations=_READ_ONLY,
    )


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """An object schema whose own fields stand at its root, as clients expect."""
    [_], described = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    components = _in_any_draft(described)
    own: dict[str, Any] = components.pop(kind.__name__)
    return own | ({"$defs": components} if components else {})


def _in_any_draft(schema: Any) -> Any:
    """The same without `prefixItems`: clients in JavaScript read schemas by draft 7, in which the
    `items: false` beside it forbids every item.
    """
    if isinstance(schema, list):
        return [_in_any_draft(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _in_any_draft(value) for name, value in schema.items()}
    if items := plain.pop("prefixItems", None):
        plain["items"] = items[0] if items.count(items[0]) == len(items) else {"anyOf": items}
    return plain
