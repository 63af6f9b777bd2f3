"""Collections and payload indexes: what the wire asks for, as the engine takes it."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from .errors import bad_request, unsupported, wrong_input
from .wire import pb

DISTANCES = {
    pb.Distance.Cosine: edge.Distance.Cosine,
    pb.Distance.Euclid: edge.Distance.Euclid,
    pb.Distance.Dot: edge.Distance.Dot,
    pb.Distance.Manhattan: edge.Distance.Manhattan,
}
DATATYPES = {
    pb.Datatype.Float32: edge.VectorStorageDatatype.Float32,
    pb.Datatype.Float16: edge.VectorStorageDatatype.Float16,
    pb.Datatype.Uint8: edge.VectorStorageDatatype.Uint8,
}
HNSW = pb.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0)
OPTIMIZERS = pb.OptimizersConfigDiff(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10_000,
    flush_interval_sec=5,
)
WAL = pb.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1)

# By the field of PayloadIndexParams: the engine's class, and the name of the type.
INDEXES: dict[str, tuple[Any, str]] = {
    "keyword_index_params": (edge.KeywordIndexParams, "Keyword"),
    "integer_index_params": (edge.IntegerIndexParams, "Integer"),
    "float_index_params": (edge.FloatIndexParams, "Float"),
    "geo_index_params": (edge.GeoIndexParams, "Geo"),
    "text_index_params": (edge.TextIndexParams, "Text"),
    "bool_index_params": (edge.BoolIndexParams, "Bool"),
    "datetime_index_params": (edge.DatetimeIndexParams, "Datetime"),
    "uuid_index_params": (edge.UuidIndexParams, "Uuid"),
}
PASSED_ON = ("is_tenant", "is_principal", "lookup", "range", "on_disk", "enable_hnsw")


def vector_params(config: pb.VectorsConfig) -> dict[str, pb.VectorParams]:
    if config.WhichOneof("config") == "params":
        return {"": config.params}
    return dict(config.params_map.map)


def vector_sizes(config: pb.VectorsConfig) -> dict[str, int]:
    return {name: params.size for name, params in vector_params(config).items()}


def with_defaults(default: Any, given: Any) -> Any:
    merged = type(default)()
    merged.CopyFrom(default)
    merged.MergeFrom(given)
    return merged


def engine_config(request: pb.CreateCollection) -> edge.EdgeConfig:
    """Quantization is stored and given back, but the engine is not told of it."""
    if request.HasField("sparse_vectors_config"):
        unsupported("sparse vectors")
    hnsw = with_defaults(HNSW, request.hnsw_config)
    vectors = {
        name: _engine_vector(params, hnsw)
        for name, params in vector_params(request.vectors_config).items()
    }
    return edge.EdgeConfig(vectors=vectors.get("", vectors), hnsw_config=_engine_hnsw(hnsw))


def _engine_vector(params: pb.VectorParams, hnsw: pb.HnswConfigDiff) -> edge.EdgeVectorParams:
    if params.size < 1:
        raise bad_request("Validation error: [size: value 0 invalid, must be 1 or larger]")
    if params.distance not in DISTANCES:
        raise wrong_input("Unable to parse distance")
    if params.HasField("multivector_config"):
        unsupported("multivectors")
    own = with_defaults(hnsw, params.hnsw_config) if params.HasField("hnsw_config") else None
    return edge.EdgeVectorParams(
        size=params.size,
        distance=DISTANCES[params.distance],
        datatype=DATATYPES.get(params.datatype),
        hnsw_config=None if own is None else _engine_hnsw(own),
    )


def _engine_hnsw(given: pb.HnswConfigDiff) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=given.m,
        ef_construct=given.ef_construct,
        full_scan_threshold=given.full_scan_threshold,
        max_indexing_threads=given.max_indexing_threads,
        payload_m=given.payload_m if given.HasField("payload_m") else None,
    )


def index_info(request: pb.CreateFieldIndexCollection) -> pb.PayloadSchemaInfo:
    """How Get describes the index, without the number of points."""
    if request.HasField("field_index_params"):
        kind = request.field_index_params.WhichOneof("index_params")
        name = INDEXES[kind][1]
        params = request.field_index_params
        return pb.PayloadSchemaInfo(data_type=pb.PayloadSchemaType.Value(name), params=params)
    if not request.HasField("field_type"):
        raise wrong_input("Can't convert field type")
    name = pb.FieldType.Name(request.field_type).removeprefix("FieldType")
    return pb.PayloadSchemaInfo(data_type=pb.PayloadSchemaType.Value(name))


def engine_index(info: pb.PayloadSchemaInfo) -> Any:
    if not info.HasField("params"):
        return getattr(edge.PayloadSchemaType, pb.PayloadSchemaType.Name(info.data_type))
    kind = info.params.WhichOneof("index_params")
    given = getattr(info.params, kind)
    fields = given.DESCRIPTOR.fields_by_name
    passed = {
        name: getattr(given, name) for name in PASSED_ON if name in fields and given.HasField(name)
    }
    return INDEXES[kind][0](**passed)
