from __future__ import annotations

from llm_trader.rpc.errors import RateLimitedError
from tests.rpc.stub import Line, connected, raising, serving


async def test_discover_lists_every_method_with_params_and_result(line: Line) -> None:
    document = (await line.call("rpc.discover"))["result"]
    assert document["openrpc"].startswith("1.")
    methods = {method["name"]: method for method in document["methods"]}
    assert {"subtract", "query", "rpc.ping", "rpc.authenticate", "rpc.discover"} <= methods.keys()
    params = {param["name"]: param for param in methods["query"]["params"]}
    assert params["symbol"] == {"name": "symbol", "required": True, "schema": {"type": "string"}}
    assert params["query_config"]["required"] is False
    assert methods["subtract"]["result"]["schema"] == {"type": "integer"}


async def test_every_reference_in_the_discovery_document_resolves(line: Line) -> None:
    document = (await line.call("rpc.discover"))["result"]

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if "$ref" in node else []
            return here + [ref for child in node.values() for ref in references(child)]
        if isinstance(node, list):
            return [ref for child in node for ref in references(child)]
        return []

    in_document = references(document)
    assert in_document
    for reference in in_document:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


async def test_discover_names_the_errors_a_method_declares() -> None:
    busy = raising("busy", RateLimitedError(250))
    async with serving(busy) as server, connected(server) as line:
        document = (await line.call("rpc.discover"))["result"]
    (method,) = [m for m in document["methods"] if m["name"] == "busy"]
    assert {"$ref": "#/components/errors/-32011"} in method["errors"]
