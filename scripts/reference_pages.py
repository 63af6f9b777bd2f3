"""Generates the reference pages of the commands, the JSON-RPC methods and the state vector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click
import msgspec
import typer

from llm_trader.cli.main import app
from llm_trader.embedding.features import FEATURES, VOLATILITY_FLOOR, ZERO, Feature
from llm_trader.embedding.state import MIN_PRESENT_SHARE, StateSpace
from llm_trader.rpc.builtin import openrpc_document, with_builtin_methods
from llm_trader.rpc.http.status import http_status
from llm_trader.rpc.http.websocket import (
    OVERLOAD,
    POLICY,
    RESTARTING,
    TOO_SLOW,
    UNAUTHENTICATED,
    UNSUPPORTED,
)
from llm_trader.serving.admin import ADMIN_METHODS
from llm_trader.serving.decisions import DECISION_METHODS
from llm_trader.serving.methods import METHODS
from llm_trader.serving.metrics.definitions import DEFINITIONS, PROTOTYPE_METRICS
from llm_trader.serving.page.methods import PAGE_METHODS
from llm_trader.serving.subscriptions import SUBSCRIPTION_METHODS
from llm_trader.serving.wire import RAG_ERRORS
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import M1, M3, M5

_WIDTH = 96

_HTTP = f"""\
## HTTP and WebSocket

| path | |
|---|---|
| `POST /rpc` | A document or a batch; `Content-Type: application/json`. Notifications get 204. |
| `GET /livez` | 200 while the process answers. |
| `GET /readyz` | 200 if index, Qdrant (where it holds the index), market store and text model \
are in order, else 503; each with its reason. Where the server asks for keys, only clients with a \
valid one see the reasons. |
| `GET /openrpc.json` | What `rpc.discover` returns. |
| `/ws` | WebSocket: each text frame is a document, and so is each reply. |

```
curl -H 'Content-Type: application/json' localhost:7880/rpc -d \
'{{"jsonrpc":"2.0","id":1,"method":"rag.query_patterns","params":{{"symbol":"BTCUSDT","timestamp":1774008000000}}}}'
```

Send a key as `Authorization: Bearer KEY` with each HTTP request and with the handshake of a
WebSocket; on an open WebSocket `rpc.authenticate` works as well. The reply to a single call has the
HTTP status of its error code, as the table above says; the reply to a batch has 200. A body has at
most `serving.max_frame_kib` (413), headers 32 KiB (431), and both must arrive within
`serving.frame_timeout_s` of their first byte (408). 401, 403, 421, 429, 503 and the like have a
JSON-RPC error as their body.

Requests with another `Host` than a name of loopback, the address that they were sent to, or one of
`serving.http_allowed_hosts` get 421; web pages of another origin than those of
`serving.http_allowed_origins` get 403. Only these origins get CORS headers.

`rag.subscribe` makes the server send a notification at each new snapshot of a symbol, within about
a second of its candle:

```
{{"jsonrpc":"2.0","method":"rag.evidence","params":{{"subscription":"s1","symbol":"BTCUSDT","as_of":1774008000000,"result":{{…}}}}}}
```

`result` is that of `rag.query_patterns`; where there is none, `error` is an error object.

| close code | why the server closes a WebSocket |
|---|---|
| {TOO_SLOW} | The client reads so slowly that a notification could not be sent. |
| {UNAUTHENTICATED} | No key was sent within `serving.authentication_timeout_s`, or it has ended. |
| {RESTARTING} | The server is stopping; connect again in a moment. |
| {OVERLOAD} | The large messages of all clients take too much memory; connect again. |
| {POLICY} | A message did not arrive in time, or too many keys were wrong. |
| {UNSUPPORTED} | A frame was not text. |
| 1009 | A message is larger than `serving.max_frame_kib`. |
| 1011 | The client did not answer a ping within 20 s. |""".splitlines()


def cli_page(note: str) -> str:
    """The help of every command."""
    lines = [note, "# Commands", ""]
    lines += ["`rag-ingest` is `llm-trader ingest`, `rag-rpc-server` is `llm-trader serve`."]
    os.environ["TERMINAL_WIDTH"] = str(_WIDTH)
    root = typer.main.get_command(app)
    for name, command, context in _commands(root, click.Context(root, info_name="llm-trader")):
        lines += ["", f"## `{name}`", "", "```", command.get_help(context).rstrip(), "```"]
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines()) + "\n"


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context.terminal_width = context.max_content_width = _WIDTH
    yield context.command_path, command, context
    children: dict[str, click.Command] = getattr(command, "commands", {})
    for name, child in children.items():
        yield from _commands(child, click.Context(child, info_name=name, parent=context))


def metrics_page(note: str) -> str:
    """Every metric, and how the prototype's are read from them."""
    lines = [note, "# Metrics", ""]
    lines += [
        "Prometheus scrapes the server's metrics at `/metrics` of the HTTP port; the setting",
        "`serving.metrics = false` turns them off. Labels take few values, whatever clients send:",
        "a method is one of the server's or `unknown`, a symbol is among the first 200 of store",
        "and index, and clients appear nowhere. A value that cannot be read at a scrape is left",
        "out. The metrics `process_…` come from the Prometheus client library.",
        "",
        "After a restart all counts begin at zero. Scores of served forecasts come from their",
        "journal (`forecasts.journal`), so a restart forgets none; without one there are none.",
        "",
        "With `--workers`, whichever worker is scraped answers for all of them, including those",
        "that have ended; a worker that is killed loses the counts of its last 5 seconds. A value",
        "that all of them read from the same files counts once, and so do scores: all workers read",
        "the journal of all.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "## Buckets", "", "| histogram | upper bounds |", "|---|---|"]
    for metric in DEFINITIONS:
        if metric.buckets:
            lines.append(f"| `{metric.name}` | {', '.join(f'{b:g}' for b in metric.buckets)} |")
    lines += ["", "## The prototype's metrics", "", "| there | here, as PromQL |", "|---|---|"]
    lines += [f"| {name} | `{promql}` |" for name, promql in PROTOTYPE_METRICS.items()]
    lines += [
        "",
        "## Traces",
        "",
        "With `serving.otlp_endpoint` and the extra `otel`, each request is a trace: a span for",
        "the request and one inside it for each stage. The variables of OpenTelemetry apply, such",
        "as `OTEL_TRACES_SAMPLER` and `OTEL_EXPORTER_OTLP_HEADERS`.",
    ]
    return "\n".join(lines) + "\n"


_NEEDS = {"open": "none", "any_key": "any valid key"}


def rpc_page(note: str) -> str:
    """The methods with their parameters, and the error codes."""
    methods = with_builtin_methods(
        [*METHODS, *DECISION_METHODS, *PAGE_METHODS, *SUBSCRIPTION_METHODS, *ADMIN_METHODS],
        title="",
        version="",
        errors=RAG_ERRORS,
    )
    document = openrpc_document(methods, title="", version="", errors=RAG_ERRORS)
    lines = [note, "# JSON-RPC methods", ""]
    lines += [
        "JSON-RPC 2.0 over TCP, port 7879: one document per line, each reply one line. The same",
        "over [HTTP and WebSocket](#http-and-websocket), port 7880. The server describes itself in",
        "full, results included, to `rpc.discover` (OpenRPC). Every method takes `timeout_ms` by",
        "name: a request that is not answered by then ends with -32013. Params that are an object",
        'may contain `"_meta": {"token": KEY}`: a key for this one call, which the method does',
        "not see; [Security](security.md) has the other ways to send a key.",
        "[`schemas/`](../schemas) has JSON Schemas of parameters and results, its `openapi.json`",
        "the paths of the HTTP port with the statuses of their answers. The server accepts",
        "parameters that it does not know, and lists them in `unknown_fields`.",
    ]
    schemas = document["components"]["schemas"]
    for method in document["methods"]:
        needs = _NEEDS.get(method["x-access"], f"a key with the scope `{method['x-access']}`")
        lines += ["", f"## `{method['name']}`", "", method["summary"]]
        lines += ["", f"Where the server asks for keys, it needs {needs}."]
        if method["params"]:
            lines += ["", "| parameter | | type and bounds |", "|---|---|---|"]
        for parameter in method["params"]:
            need = "required" if parameter["required"] else "optional"
            kind = _type_and_bounds(parameter["schema"])
            lines.append(f"| `{parameter['name']}` | {need} | {kind} |")
            for schema in _object_schemas(parameter["schema"], schemas):
                lines += _rows(parameter["name"], schema)
        result = method["result"]["schema"]
        lines += ["", f"Result: {_kind_of_result(result)}."]
    lines += _results(document)
    lines += ["", "## Errors", "", "| code | | HTTP status |", "|---|---|---|"]
    lines += [
        f"| {code} | {title} | {http_status(code)} |"
        for code, title in sorted(RAG_ERRORS.titles.items())
    ]
    lines += ["", *_HTTP]
    return "\n".join(lines) + "\n"


def _results(document: dict[str, Any]) -> Iterator[str]:
    """A table for each object in a result, in the order of their first mention."""
    schemas = document["components"]["schemas"]
    yield from ("", "## Result fields", "", "A number that is unknown is null, never 0.")
    names = [_names_in(method["result"]["schema"]) for method in document["methods"]]
    waiting = [name for group in names for name in group]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        # The fields of a state have a page of their own.
        if name in seen or name == MarketSnapshot.__name__:
            continue
        seen.add(name)
        fields = schemas[name].get("properties", {})
        yield from ("", f"### {name}", "", "| field | type | meaning |", "|---|---|---|")
        for field, schema in fields.items():
            yield f"| `{field}` | {_kind_of_result(schema)} | {schema.get('description', '')} |"
        waiting = [n for schema in fields.values() for n in _names_in(schema)] + waiting


def _names_in(schema: Any) -> list[str]:
    """The objects that a schema refers to."""
    if isinstance(schema, list):
        return [name for item in schema for name in _names_in(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    return own + [name for value in schema.values() for name in _names_in(value)]


def _kind_of_result(schema: dict[str, Any]) -> str:
    """The type of a value, with a link to the table of an object."""
    if "anyOf" in schema:
        return " or ".join(_kind_of_result(option) for option in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        page = "state.md" if name == MarketSnapshot.__name__ else f"#{name.lower()}"
        return f"[{name}]({page})"
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items") or {}]
        if len(items) > 1:
            return f"list of {len(items)} {_kind_of_result(items[0])}s"
        return f"list of {_kind_of_result(items[0])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind_of_result(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _object_schemas(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for option in (schema, *schema.get("anyOf", ())):
        if "$ref" in option:
            yield schemas[option["$ref"].rpartition("/")[2]]


def _rows(parent: str, schema: dict[str, Any]) -> Iterator[str]:
    for name, field in schema["properties"].items():
        need = "required" if name in schema.get("required", ()) else "optional"
        yield f"| `{parent}.{name}` | {need} | {_type_and_bounds(field)} |"


def _type_and_bounds(schema: dict[str, Any]) -> str:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    parts = []
    for option in options:
        kind = "object" if "$ref" in option else str(option.get("type", ""))
        bounds = [
            f"{sign} {option[key]}"
            for key, sign in (
                ("minimum", "≥"),
                ("exclusiveMinimum", ">"),
                ("maximum", "≤"),
                ("exclusiveMaximum", "<"),
            )
            if key in option
        ]
        choices = [f"`{choice}`" for choice in option.get("enum", ())]
        parts.append(" ".join([kind, *bounds, *choices]).strip())
        if described := option.get("description"):
            parts[-1] += f"; {described}" if kind != "object" else ""
    return ", or ".join(parts)


def state_page(note: str) -> str:
    """The fields of a snapshot and the features of its vector."""
    lines = [note, "# The state: fields and features", "", "## Fields of a snapshot", ""]
    lines += ["| field | unit |", "|---|---|"]
    for field in msgspec.structs.fields(MarketSnapshot)[2:]:
        described = getattr(field.type, "__metadata__", None)
        unit = described[0].description if described else "the last 10 points, oldest first"
        lines.append(f"| `{field.name}` | {unit} |")
    lines += ["", "## Features of the `state` vector", ""]
    lines += [
        "z = (value − centre) / scale, θ = (π/2)·tanh z, and the feature becomes √w·(cos θ, sin θ)",
        "divided by √Σw: the norm is 1, and cosine similarity is the weighted mean of cos Δθ. The",
        "scale is for 5-minute candles; others multiply it by (length / 5 min) to the exponent.",
        f"Volatilities and arguments of logarithms are at least {VOLATILITY_FLOOR:g}. A query with",
        f"less than {MIN_PRESENT_SHARE:.0%} of the weight is refused.",
        "",
        "| feature | value | centre | scale | weight | exponent |",
        "|---|---|---|---|---|---|",
    ]
    for feature in FEATURES:
        numbers = (feature.centre, feature.scale, feature.weight, feature.length_exponent)
        cells = [f"`{feature.name}`", _formula(feature), *(f"{n:g}" for n in numbers)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Vector spaces, by intraday candle:", ""]
    lines += [f"- {t}: `{StateSpace(t).space_id}`" for t in (M1, M3, M5)]
    return "\n".join(lines) + "\n"


def _formula(feature: Feature) -> str:
    value = feature.plus if feature.minus == ZERO else f"({feature.plus} − {feature.minus})"
    if feature.over != "1":
        value += f" / {feature.over}"
    shapes = {"linear": value, "log": f"ln({value})"}
    waves = {"sine": f"sin(2π·{value}/24)", "cosine": f"cos(2π·{value}/24)"}
    return f"`{(shapes | waves)[feature.shape]}`"
