"""Documents without their fragments, aliases and directives: as Strawberry runs them, in bounds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from graphql import GraphQLObjectType, get_named_type
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.graphql import answers
from llm_trader.serving.graphql.answers import Picker
from llm_trader.serving.graphql.document import DocumentReader, RefusedDocumentError
from llm_trader.serving.graphql.plan import PlannedField, Planner
from llm_trader.serving.graphql.schema import FIELD_METHODS, graphql_schema, strawberry_schema
from tests.serving.graphql.clients import sample

_SCHEMA = graphql_schema()
_STRAWBERRY = strawberry_schema()
_SAMPLES = {method.name: sample(method.result_type) for method in FIELD_METHODS}
_ARGUMENTS = {
    "query_patterns": '(symbol:"BTCUSDT",timestamp:$t)',
    "get_snapshot": '(timestamp:1735689600000,symbol:"BTCUSDT")',
    "get_candles": '(symbol:"BTCUSDT",start:1,end:$t,timeframe:"5m")',
    "get_funding": '(symbol:"BTCUSDT",start:1,end:$t)',
    "forecast_quality": '(symbol:"BTCUSDT",days:7)',
    "get_open_interest": '(symbol:"BTCUSDT",start:1,end:$t)',
    "cohort_open": '(symbol:"BTCUSDT",timestamp:$t)',
    "cohort_refine": '(cohort:"BTCUSDT@2026-03-20T12:00:00Z",conditions:["trend=up"])',
    "cohort_rank": '(cohort:"BTCUSDT@2026-03-20T12:00:00Z")',
}
_VARIABLES = {"t": 1735689600000, "yes": True, "no": False}
_USE_OF_ALL = (
    'used:get_snapshot(symbol:"A",timestamp:$t)@skip(if:$yes)@include(if:$no){data_age_seconds}'
)
_DIRECTIVES = ("", "", "", "@include(if:$yes)", "@skip(if:$yes)", "@skip(if:$no)@include(if:true)")


def planned(document: str, variables: Any = None, **limits: Any) -> list[PlannedField]:
    config = ServingConfig(graphql=True, **limits)
    body = msgspec.json.encode({"query": document, "variables": variables})
    return Planner(_SCHEMA, DocumentReader(_SCHEMA, config).read(body), config).fields()


def answered(fields: list[PlannedField]) -> dict[str, Any]:
    data = {}
    for field in fields:
        picker = Picker(_SCHEMA)
        if field.name.startswith("__"):
            data[field.key] = picker.value(None, field)
        else:
            data[field.key] = picker.complete(_SAMPLES[f"rag.{field.name}"], field)
    return data


@st.composite
def selections(draw: st.DrawFn, kind: GraphQLObjectType, depth: int = 0) -> str:
    """Fields of a type in fragments, some of them twice."""
    names = [*kind.fields, "__typename"]
    parts = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
        inner = ""
        if name != "__typename":
            named = get_named_type(kind.fields[name].type)
            if isinstance(named, GraphQLObjectType):
                inner = "{" + draw(selections(named, depth + 1)) + "}"
        # An alias of its own for each field and directive: they cannot contradict each other.
        arguments = _ARGUMENTS.get(name, "") if kind.name == "Query" else ""
        alias = draw(st.sampled_from(["", f"other_{name}:"]))
        part = f"{alias}{name}{arguments}{draw(st.sampled_from(_DIRECTIVES))}{inner}"
        shape = draw(st.sampled_from(["{}", "{}", "...{{{}}}", "...on {kind}@skip(if:$no){{{}}}"]))
        parts.append(shape.format(part, kind=kind.name))
    return " ".join(parts)


@given(st.data())
def test_an_answer_is_the_one_that_strawberry_gives(data: st.DataObject) -> None:
    query = _SCHEMA.query_type
    assert query is not None
    twice, once = data.draw(selections(query)), data.draw(selections(query))
    # What is asked for twice is answered once; and every variable is used.
    document = (
        "query($t:Long!,$yes:Boolean!,$no:Boolean=false){"
        f"{twice} ...Rest ...Rest}} fragment Rest on Query{{{twice} {once} {_USE_OF_ALL}}}"
    )

    async def call(method: str, arguments: dict[str, Any]) -> Any:
        return _SAMPLES[method]

    told = asyncio.run(_STRAWBERRY.execute(document, _VARIABLES, context_value=call))
    assert told.errors is None
    fields = planned(document, _VARIABLES, graphql_max_aliases=1000, graphql_max_tokens=10_000)
    # As text: the order of the fields is part of the answer.
    assert json.dumps(answered(fields)) == json.dumps(told.data, default=list)


def test_fields_that_are_asked_for_twice_are_answered_once_and_in_order() -> None:
    fields = planned(
        "{stats{ready index{backend}} ...{stats{version index{location ready:backend}}}}"
    )
    assert [field.key for field in fields] == ["stats"]
    assert answered(fields) == {
        "stats": {
            "ready": True,
            "index": {"backend": "3", "location": "3", "ready": "3"},
            "version": "3",
        }
    }


@pytest.mark.parametrize(
    "document",
    [
        '{a:stats{version} a:get_funding(symbol:"A",start:1,end:2){time}}',
        '{__type(name:"A"){name} __type(name:"B"){name}}',
        "{stats{v:version} ...{stats{v:embedding_model}}}",
    ],
)
def test_one_name_for_two_different_fields_is_refused(document: str) -> None:
    with pytest.raises(RefusedDocumentError, match="stands for two different fields") as raised:
        planned(document)
    assert raised.value.errors[0].locations


def test_the_documents_of_the_page_are_answered() -> None:
    page = (Path(__file__).parents[3] / "docs" / "graphql.md").read_text(encoding="utf-8")
    documents = page.split("```graphql\n")[1:]
    assert documents
    for document in documents:
        variables = {"symbol": "BTCUSDT", "now": 1735689600000, "day_ago": 1735603200000}
        assert answered(planned(document.partition("```")[0], variables))


def test_the_order_of_arguments_makes_no_difference() -> None:
    document = (
        '{get_funding(symbol:"A",start:1,end:2){time} get_funding(end:2,start:1,symbol:"A"){rate}}'
    )
    (field,) = planned(document)
    assert [inner.key for inner in field.fields or ()] == ["time", "rate"]


def test_aliases_in_fragments_count_wherever_they_are_used() -> None:
    document = (
        "{...A stats{...B}} fragment A on Query{a:stats{...B}} fragment B on StatsResult{b:version}"
    )
    assert planned(document, graphql_max_aliases=3)
    with pytest.raises(RefusedDocumentError, match="more than 2 aliases"):
        planned(document, graphql_max_aliases=2)


def test_depth_counts_fields_and_not_fragments() -> None:
    document = "{...{stats{...{index{...{collection{dimension}}}}}}}"
    assert planned(document, graphql_max_depth=4)
    with pytest.raises(RefusedDocumentError, match="more than 3 levels deep"):
        planned(document, graphql_max_depth=3)


def test_fragments_that_double_at_every_level_are_refused_early() -> None:
    levels = "".join(
        f" fragment F{i} on __Type{{ofType{{...F{i + 1}}} fields{{type{{...F{i + 1}}}}}}}"
        for i in range(12)
    )
    document = "{__schema{types{...F0}}}" + levels + " fragment F12 on __Type{name}"
    with pytest.raises(RefusedDocumentError, match=r"selects more than 2000 fields|introspection"):
        planned(document, graphql_max_depth=100)


def test_a_variable_that_is_missing_where_it_must_not_be_is_told() -> None:
    document = 'query($t:Long=null){get_snapshot(symbol:"A",timestamp:$t){feature_version}}'
    with pytest.raises(RefusedDocumentError) as raised:
        planned(document)
    assert raised.value.reason.code in ("invalid_params", "invalid_request")


def test_an_answer_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = planned("{__schema{types{name fields{name}}}}")
    assert answered(fields)
    monkeypatch.setattr(answers, "MAX_VALUES", 200)
    with pytest.raises(InvalidInputError, match="more than 200 values; select fewer fields"):
        answered(fields)


def test_long_lists_of_numbers_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    (field,) = planned('{get_funding(symbol:"A",start:1,end:2){time a:time}}')
    monkeypatch.setattr(answers, "MAX_VALUES", 30)
    result = _SAMPLES["rag.get_funding"]
    assert Picker(_SCHEMA).complete(result, field)
    longer = msgspec.structs.replace(result, time=[1] * 1000)
    with pytest.raises(InvalidInputError, match="more than 30 values"):
        Picker(_SCHEMA).complete(longer, field)
