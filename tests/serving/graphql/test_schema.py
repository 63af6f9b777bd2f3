"""The GraphQL schema is the structs of the wire: no field is missing, none is another's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.params import NoParams
from llm_trader.serving.graphql.schema import (
    FIELD_METHODS,
    graphql_schema,
    schema_text,
    strawberry_schema,
)
from llm_trader.serving.wire import CurrentState, QueryConfigParams
from tests.serving.graphql.clients import sample


def _object(name: str) -> GraphQLObjectType:
    kind = graphql_schema().get_type(name)
    assert isinstance(kind, GraphQLObjectType)
    return kind


def test_every_method_is_a_field_with_the_parameters_of_the_wire() -> None:
    query = _object("Query")
    assert list(query.fields) == [method.name.removeprefix("rag.") for method in FIELD_METHODS]
    for method in FIELD_METHODS:
        field = query.fields[method.name.removeprefix("rag.")]
        params = msgspec.structs.fields(method.params_type or NoParams)
        assert {name: argument.out_name or name for name, argument in field.args.items()} == {
            param.encode_name: param.encode_name for param in params
        }
        for param in params:
            assert str(field.args[param.encode_name].type).endswith("!") is param.required
        # One field that fails leaves the others.
        assert not str(field.type).endswith("!")


@pytest.mark.parametrize("method", FIELD_METHODS, ids=lambda method: method.name)
def test_every_field_of_a_result_is_in_its_type(method: Method) -> None:
    waiting = [(method.result_type, method.result_type.__name__)]
    checked = 0
    while waiting:
        struct, name = waiting.pop()
        kind = _object(name)
        names = [field.encode_name for field in msgspec.structs.fields(struct)]
        assert list(kind.fields) == names
        value = sample(struct)
        for field in names:
            item = getattr(value, field)
            item = next(iter(item.values())) if isinstance(item, dict) else item
            item = item[0] if isinstance(item, list) else item
            if isinstance(item, msgspec.Struct):
                waiting.append((type(item), type(item).__name__))
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize(
    ("name", "struct"),
    [("CurrentStateInput", CurrentState), ("QueryConfigInput", QueryConfigParams)],
)
def test_inputs_have_the_fields_of_the_parameters(name: str, struct: type[msgspec.Struct]) -> None:
    kind = graphql_schema().get_type(name)
    assert isinstance(kind, GraphQLInputObjectType)
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert list(kind.fields) == list(fields)


def test_unknown_numbers_may_be_null_and_known_ones_may_not() -> None:
    metadata = _object("Metadata").fields
    assert str(metadata["as_of"].type) == "Long!"
    assert str(metadata["store_end"].type) == "Long"
    assert str(metadata["data_age_seconds"].type) == "Float"
    assert str(_object("Evidence").fields["horizons"].type) == "[HorizonEvidenceEntry!]!"
    assert str(_object("Statistics").fields["similarity_range"].type) == "Numbers"


def test_fields_are_described_as_on_the_wire() -> None:
    field = _object("Match").fields["resolved_at"]
    assert field.description == "When its outcomes were all known, 24h later, UTC milliseconds."
    end = _object("Query").fields["get_candles"].args["end"]
    assert end.description == "UTC milliseconds; rows before it are returned"


def test_the_text_of_the_schema_has_every_type() -> None:
    text = schema_text()
    for name, kind in graphql_schema().type_map.items():
        named = get_named_type(kind)
        if isinstance(named, GraphQLObjectType) and not name.startswith("__"):
            assert f"\ntype {name} {{" in f"\n{text}"


def test_two_structs_of_one_name_are_refused() -> None:
    other = msgspec.defstruct("StatsResult", [("version", str)])
    twin = Method("rag.twin", None, FIELD_METHODS[0].handler, "Another.", other)
    with pytest.raises(ConfigurationError, match="two types of the GraphQL schema are named Stats"):
        strawberry_schema([*FIELD_METHODS, twin])


@pytest.mark.parametrize("kind", [int | str, dict[str, Any], bytes])
def test_a_result_that_graphql_cannot_express_is_refused(kind: Any) -> None:
    other = msgspec.defstruct("Odd", [("value", kind)])
    odd = Method("rag.odd", None, FIELD_METHODS[0].handler, "Odd.", other)
    with pytest.raises(ConfigurationError, match="has no type for"):
        strawberry_schema([*FIELD_METHODS, odd])
