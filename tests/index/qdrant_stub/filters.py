"""Filters of the wire as filters of the engine."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import qdrant_edge as edge

from .errors import unsupported, wrong_input
from .wire import pb


def point_id(given: pb.PointId) -> int | UUID:
    kind = given.WhichOneof("point_id_options")
    if kind == "num":
        return given.num
    if kind is None:
        raise wrong_input("Empty PointId is provided")
    try:
        return UUID(given.uuid)
    except ValueError as error:
        raise wrong_input(f"Unable to parse UUID: {given.uuid}") from error


def optional_filter(message: Any, field: str = "filter") -> edge.Filter | None:
    return point_filter(getattr(message, field)) if message.HasField(field) else None


def point_filter(given: pb.Filter) -> edge.Filter:
    at_least = None
    if given.HasField("min_should"):
        at_least = edge.MinShould(
            [condition(c) for c in given.min_should.conditions], given.min_should.min_count
        )
    return edge.Filter(
        must=[condition(c) for c in given.must] or None,
        should=[condition(c) for c in given.should] or None,
        must_not=[condition(c) for c in given.must_not] or None,
        min_should=at_least,
    )


def condition(given: pb.Condition) -> Any:
    kind = given.WhichOneof("condition_one_of")
    if kind == "field":
        return field_condition(given.field)
    if kind == "filter":
        return point_filter(given.filter)
    if kind == "has_id":
        return edge.HasIdCondition({point_id(each) for each in given.has_id.has_id})
    if kind == "is_empty":
        return edge.IsEmptyCondition(given.is_empty.key)
    if kind == "is_null":
        return edge.IsNullCondition(given.is_null.key)
    if kind == "has_vector":
        return edge.HasVectorCondition(given.has_vector.has_vector)
    if kind == "nested":
        return edge.NestedCondition(given.nested.key, point_filter(given.nested.filter))
    return unsupported(f"the condition {kind}")


def field_condition(given: pb.FieldCondition) -> edge.FieldCondition:
    for kind in ("geo_bounding_box", "geo_radius", "geo_polygon"):
        if given.HasField(kind):
            unsupported(f"the condition {kind}")
    span: Any = None
    if given.HasField("range"):
        span = edge.RangeFloat(**_bounds(given.range))
    elif given.HasField("datetime_range"):
        texts = {k: v.ToJsonString() for k, v in _bounds(given.datetime_range).items()}
        span = edge.RangeDateTime(**texts)
    values = None
    if given.HasField("values_count"):
        values = edge.ValuesCount(**_bounds(given.values_count))
    return edge.FieldCondition(
        given.key,
        match=_match(given.match) if given.HasField("match") else None,
        range=span,
        values_count=values,
        is_empty=given.is_empty if given.HasField("is_empty") else None,
        is_null=given.is_null if given.HasField("is_null") else None,
    )


def _bounds(given: Any) -> dict[str, Any]:
    names = ("lt", "lte", "gt", "gte")
    return {name: getattr(given, name) for name in names if given.HasField(name)}


def _match(given: pb.Match) -> Any:
    kind = given.WhichOneof("match_value")
    value = getattr(given, kind)
    if kind in ("keyword", "integer", "boolean"):
        return edge.MatchValue(value)
    if kind == "keywords":
        return edge.MatchAny(list(value.strings))
    if kind == "integers":
        return edge.MatchAny(list(value.integers))
    if kind == "except_keywords":
        return edge.MatchExcept(list(value.strings))
    if kind == "except_integers":
        return edge.MatchExcept(list(value.integers))
    if kind == "text":
        return edge.MatchText(value)
    return unsupported(f"the match {kind}")
