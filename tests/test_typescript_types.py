"""The types of the client for Node.js are those of the schemas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trader.llm.prompt.render import TEMPLATE_VERSION

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from typescript_types import PATH, typescript_page


def pages(*structs: dict[str, Any], title: str = "The state") -> dict[str, Callable[[], str]]:
    return {
        str(number): lambda struct=struct: json.dumps(
            {"title": title, "$ref": "#/$defs/Thing", "$defs": {"Thing": struct}}
        )
        for number, struct in enumerate(structs)
    }


def thing(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or []}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "string"}, "string"),
        ({"type": "integer"}, "number"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"enum": ["a", "b"]}, '"a" | "b"'),
        ({"$ref": "#/$defs/Thing"}, "Thing"),
        ({"type": "array", "items": {"type": "number"}}, "number[]"),
        (
            {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "(number | null)[]",
        ),
        (
            {
                "type": "array",
                "prefixItems": [{"type": "number"}, {"type": "string"}],
                "items": False,
            },
            "[number, string]",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            "Record<string, boolean>",
        ),
        ({"type": "object"}, "Record<string, unknown>"),
        ({}, "unknown"),
    ],
)
def test_a_schema_is_a_type(schema: dict[str, Any], written: str) -> None:
    page = typescript_page("note", pages(thing(["given"], given=schema, left_out=schema)))
    assert f"  given: {written};\n  left_out?: {written};\n" in page


def test_descriptions_and_bounds_are_comments_that_cannot_end_early() -> None:
    described = {"type": "integer", "minimum": 1, "maximum": 5, "description": "Up */ to five."}
    page = typescript_page("note", pages(thing(a=described)))
    assert "  /** Up *\\/ to five. (≥ 1, ≤ 5) */\n  a?: number;" in page


def test_a_kind_of_schema_that_nobody_thought_of_is_refused() -> None:
    with pytest.raises(KeyError):
        typescript_page("note", pages(thing(a={"type": "set"})))


def test_two_structs_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Thing has one form"):
        typescript_page("note", pages(thing(), thing(a={"type": "string"})))


def test_a_method_has_its_parameters_and_its_result() -> None:
    both = {
        **pages(thing(["a"], a={"type": "string"}), title="Result of rag.thing"),
        "params": pages(thing(["a"], a={"type": "string"}), title="Parameters of rag.thing")["0"],
    }
    page = typescript_page("note", both)
    assert '  "rag.thing": { params: Thing; result: Thing };' in page
    assert '  "rag.thing": [["a"]],' in page


def test_the_client_writes_prompts_of_the_same_version() -> None:
    sources = (Path(__file__).resolve().parents[1] / PATH).parent
    source = (sources / "prompt/render.ts").read_text(encoding="utf-8")
    assert f'export const TEMPLATE_VERSION = "{TEMPLATE_VERSION}";' in source
