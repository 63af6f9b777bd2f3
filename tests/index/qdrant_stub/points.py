"""Points, payloads and vectors: from the wire to the engine, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from .errors import unsupported, wrong_input
from .filters import point_id
from .wire import pb


def value_of(given: pb.Value) -> Any:
    """A JSON value; the wire's integers and doubles stay apart."""
    kind = given.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    if kind == "struct_value":
        return payload_of(given.struct_value.fields)
    if kind == "list_value":
        return [value_of(each) for each in given.list_value.values]
    return getattr(given, kind)


def payload_of(given: Mapping[str, pb.Value]) -> dict[str, Any]:
    return {key: value_of(value) for key, value in given.items()}


def to_value(value: Any) -> pb.Value:
    if value is None:
        return pb.Value(null_value=pb.NULL_VALUE)
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        return pb.Value(integer_value=value)
    if isinstance(value, float):
        return pb.Value(double_value=value)
    if isinstance(value, str):
        return pb.Value(string_value=value)
    if isinstance(value, dict):
        return pb.Value(struct_value=pb.Struct(fields=to_payload(value)))
    return pb.Value(list_value=pb.ListValue(values=[to_value(each) for each in value]))


def to_payload(payload: Mapping[str, Any] | None) -> dict[str, pb.Value]:
    return {key: to_value(value) for key, value in (payload or {}).items()}


def dense(given: pb.Vector | pb.VectorInput, kind: str | None) -> list[float]:
    if kind == "dense":
        return list(given.dense.data)
    if kind is None and isinstance(given, pb.Vector) and not given.HasField("indices"):
        return list(given.data)
    return unsupported(f"{kind} vectors")


def vectors_of(given: pb.Vectors) -> dict[str, list[float]]:
    """By name; the name of an unnamed vector is empty."""
    kind = given.WhichOneof("vectors_options")
    if kind == "vector":
        return {"": dense(given.vector, given.vector.WhichOneof("vector"))}
    named = given.vectors.vectors
    return {name: dense(v, v.WhichOneof("vector")) for name, v in named.items()}


def point_of(given: pb.PointStruct, sizes: Mapping[str, int]) -> edge.Point:
    vectors = vectors_of(given.vectors) if given.HasField("vectors") else {}
    check_vectors(vectors, sizes)
    # The engine calls an unnamed vector by no name at all.
    vector = vectors.get("", vectors)
    return edge.Point(point_id(given.id), vector, payload_of(given.payload))


def check_vectors(vectors: Mapping[str, list[float]], sizes: Mapping[str, int]) -> None:
    """Before the engine: a refused batch must not reach the write-ahead log."""
    for name, vector in vectors.items():
        if name not in sizes:
            raise wrong_input(f"Not existing vector name error: {name}")
        if len(vector) != sizes[name]:
            raise wrong_input(
                f"Vector dimension error: expected dim: {sizes[name]}, got {len(vector)}"
            )


def to_point_id(given: int | UUID | str) -> pb.PointId:
    return pb.PointId(num=given) if isinstance(given, int) else pb.PointId(uuid=str(given))


def to_vectors(given: Any) -> pb.VectorsOutput | None:
    if given is None or given == {}:
        return None
    if isinstance(given, dict):
        named = {name: _to_vector(vector) for name, vector in given.items()}
        return pb.VectorsOutput(vectors=pb.NamedVectorsOutput(vectors=named))
    return pb.VectorsOutput(vector=_to_vector(given))


def _to_vector(given: list[float]) -> pb.VectorOutput:
    return pb.VectorOutput(dense=pb.DenseVector(data=given))


def to_order_value(given: int | float | None) -> pb.OrderValue | None:
    if given is None:
        return None
    return pb.OrderValue(int=given) if isinstance(given, int) else pb.OrderValue(float=given)


def to_scored(point: edge.ScoredPoint) -> pb.ScoredPoint:
    return pb.ScoredPoint(
        id=to_point_id(point.id),
        payload=to_payload(point.payload),
        score=point.score,
        version=point.version,
        vectors=to_vectors(point.vector),
        order_value=to_order_value(point.order_value),
    )


def to_retrieved(record: edge.Record) -> pb.RetrievedPoint:
    return pb.RetrievedPoint(
        id=to_point_id(record.id),
        payload=to_payload(record.payload),
        vectors=to_vectors(record.vector),
        order_value=to_order_value(record.order_value),
    )


def wanted_payload(request: Any, default: bool) -> Any:
    if not request.HasField("with_payload"):
        return default
    selector = request.with_payload
    kind = selector.WhichOneof("selector_options")
    if kind == "include":
        return edge.PayloadSelector.Include(list(selector.include.fields))
    if kind == "exclude":
        return edge.PayloadSelector.Exclude(list(selector.exclude.fields))
    return selector.enable


def wanted_vectors(request: Any) -> Any:
    if not request.HasField("with_vectors"):
        return False
    selector = request.with_vectors
    if selector.WhichOneof("selector_options") == "include":
        return list(selector.include.names)
    return selector.enable
