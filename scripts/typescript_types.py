"""Makes the TypeScript types of the client for Node.js from the JSON Schemas of `schemas/`.

The file has an interface for each struct, `Methods` with the parameters and the result of each
method, the fields by which a result is known, and the codes of errors.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llm_trader.serving.wire import RAG_ERRORS

Schema = dict[str, Any]

PATH = "clients/typescript/src/wire.ts"
_PARAMETERS, _RESULT = "Parameters of ", "Result of "
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches {}",
}
_SIMPLE = {
    "string": "string",
    "boolean": "boolean",
    "null": "null",
    "integer": "number",
    "number": "number",
}


def typescript_page(note: str, pages: Mapping[str, Callable[[], str]]) -> str:
    """The text of `PATH`. `pages` has the text of each schema by its path."""
    schemas = [json.loads(page()) for page in pages.values()]
    blocks = [
        f"// {note}\n",
        *_structs(schemas),
        _methods(schemas),
        _result_fields(schemas),
        _error_codes(),
    ]
    return "\n".join(blocks)


def _structs(schemas: list[Schema]) -> Iterator[str]:
    structs: dict[str, Schema] = {}
    for schema in schemas:
        for name, struct in schema["$defs"].items():
            if structs.setdefault(name, struct) != struct:
                raise ValueError(f"{name} has one form in {schema['title']!r} and another before")
    return (_struct(name, struct) for name, struct in structs.items())


def _struct(name: str, struct: Schema) -> str:
    if "properties" not in struct:
        return f"{_comment(struct, '')}export type {name} = {_type(struct)};\n"
    required = set(struct["required"])
    lines = [f"{_comment(struct, '')}export interface {name} {{"]
    for field, schema in struct["properties"].items():
        optional = "" if field in required else "?"
        lines.append(f"{_comment(schema, '  ')}  {_key(field)}{optional}: {_type(schema)};")
    return "\n".join([*lines, "}\n"])


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"Record<string, {_type(values) if isinstance(values, dict) else 'unknown'}>"
    return "unknown" if kind is None else _SIMPLE[kind]


def _array(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(map(_type, schema['prefixItems']))}]"
    item = _type(schema.get("items") or {})
    return f"({item})[]" if " | " in item else f"{item}[]"


def _key(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name)


def _comment(schema: Schema, indent: str) -> str:
    """What the schema says beyond its type, as a comment with its line end; empty if nothing."""
    parts = [schema, *schema.get("anyOf", [])]
    text = inspect.cleandoc(next((p["description"] for p in parts if "description" in p), ""))
    bounds = [
        words.format(part[key]) for part in parts for key, words in _BOUNDS.items() if key in part
    ]
    if bounds:
        text = f"{text} ({', '.join(bounds)})".strip()
    lines = [line.replace("*/", "*\\/").rstrip() for line in text.splitlines()]
    if len(lines) <= 1:
        return "".join(f"{indent}/** {line} */\n" for line in lines)
    starred = [f"{indent} * {line}".rstrip() for line in lines]
    return "\n".join([f"{indent}/**", *starred, f"{indent} */\n"])


def _by_method(schemas: list[Schema], prefix: str) -> dict[str, Schema]:
    titled = ((schema["title"], schema) for schema in schemas)
    return {title[len(prefix) :]: schema for title, schema in titled if title.startswith(prefix)}


def _methods(schemas: list[Schema]) -> str:
    results = _by_method(schemas, _RESULT)
    lines = ["/** Parameters and result of each method. */", "export interface Methods {"]
    for method, params in _by_method(schemas, _PARAMETERS).items():
        result = _type(results[method]) if method in results else "unknown"
        lines.append(f'  "{method}": {{ params: {_type(params)}; result: {result} }};')
    return "\n".join([*lines, "}\n"])


def _result_fields(schemas: list[Schema]) -> str:
    """The fields that a result must have, for each form that it may have."""
    lines = [
        "/** Fields that a result has at least, for each of its forms. */",
        "export const RESULT_FIELDS = {",
    ]
    for method, schema in _by_method(schemas, _RESULT).items():
        forms = [
            schema["$defs"][_type(form)]["required"]
            for form in schema.get("anyOf", [schema])
            if "$ref" in form
        ]
        if forms:
            lines.append(f'  "{method}": {json.dumps(forms)},')
    return "\n".join([*lines, "} as const;\n"])


def _error_codes() -> str:
    titles = RAG_ERRORS.titles.items()
    lines = ["/** What each code of an error means. */", "export const ERROR_TITLES = {"]
    lines += [f"  [{code}]: {json.dumps(title)}," for code, title in sorted(titles)]
    lines += ["} as const;\n", "/** The codes of a server's errors. */"]
    return "\n".join([*lines, "export type ErrorCode = keyof typeof ERROR_TITLES;\n"])
