"""The gRPC services, each call a few lines between the wire and the engine."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from . import schema, searches
from .cluster import cluster_of
from .filters import optional_filter, point_id
from .points import (
    payload_of,
    point_of,
    to_point_id,
    to_retrieved,
    to_scored,
    wanted_payload,
    wanted_vectors,
)
from .searches import selected
from .snapshots import Snapshots
from .store import Collection, Store
from .strict import require_indexes
from .wire import pb

VERSION = "1.20.0"
TITLE = "qdrant - vector search engine"
UPDATE_MODES = {
    pb.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    pb.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    pb.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}


class Health(pb.QdrantServicer):
    def HealthCheck(self, request: Any, context: Any) -> Any:
        return pb.HealthCheckReply(title=TITLE, version=VERSION)


class Collections(pb.CollectionsServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    def Create(self, request: Any, context: Any) -> Any:
        self._store.create(request)
        return pb.CollectionOperationResponse(result=True)

    def Update(self, request: Any, context: Any) -> Any:
        self._store.resolve(request.collection_name).change(request)
        return pb.CollectionOperationResponse(result=True)

    def Delete(self, request: Any, context: Any) -> Any:
        return pb.CollectionOperationResponse(result=self._store.drop(request.collection_name))

    def Get(self, request: Any, context: Any) -> Any:
        info = self._store.resolve(request.collection_name).info()
        return pb.GetCollectionInfoResponse(result=info)

    def List(self, request: Any, context: Any) -> Any:
        names = [pb.CollectionDescription(name=name) for name in sorted(self._store.collections)]
        return pb.ListCollectionsResponse(collections=names)

    def CollectionExists(self, request: Any, context: Any) -> Any:
        name = self._store.aliases.get(request.collection_name, request.collection_name)
        found = pb.CollectionExists(exists=name in self._store.collections)
        return pb.CollectionExistsResponse(result=found)

    def UpdateAliases(self, request: Any, context: Any) -> Any:
        self._store.change_aliases(request.actions)
        return pb.CollectionOperationResponse(result=True)

    def ListCollectionAliases(self, request: Any, context: Any) -> Any:
        return self._aliases(request.collection_name)

    def ListAliases(self, request: Any, context: Any) -> Any:
        return self._aliases(None)

    def _aliases(self, of: str | None) -> Any:
        described = [
            pb.AliasDescription(alias_name=alias, collection_name=name)
            for alias, name in sorted(self._store.aliases.items())
            if of in (None, name)
        ]
        return pb.ListAliasesResponse(aliases=described)

    def CollectionClusterInfo(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        return cluster_of(collection, self._store.peers)


def _done(number: int, request: Any) -> Any:
    waited = not request.HasField("wait") or request.wait
    status = pb.UpdateStatus.Completed if waited else pb.UpdateStatus.Acknowledged
    return pb.PointsOperationResponse(result=pb.UpdateResult(operation_id=number, status=status))


class PointWrites(pb.PointsServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    def Upsert(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        points = [point_of(point, collection.sizes) for point in request.points]
        mode = UPDATE_MODES[request.update_mode] if request.HasField("update_mode") else None
        operation = edge.UpdateOperation.upsert_points(
            points, optional_filter(request, "update_filter"), mode
        )
        return _done(collection.update(operation), request)

    def Delete(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        require_indexes(collection, request.points.filter, update=True)
        ids, matching = selected(request.points)
        if ids is not None:
            operation = edge.UpdateOperation.delete_points(ids)
        else:
            operation = edge.UpdateOperation.delete_points_by_filter(matching)
        return _done(collection.update(operation), request)

    def SetPayload(self, request: Any, context: Any) -> Any:
        ways = (edge.UpdateOperation.set_payload, edge.UpdateOperation.set_payload_by_filter)
        return self._payload(request, *ways)

    def OverwritePayload(self, request: Any, context: Any) -> Any:
        ways = (
            edge.UpdateOperation.overwrite_payload,
            edge.UpdateOperation.overwrite_payload_by_filter,
        )
        return self._payload(request, *ways)

    def _payload(self, request: Any, by_ids: Any, by_filter: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        ids, matching = selected(request.points_selector)
        key = request.key if request.HasField("key") else None
        payload = payload_of(request.payload)
        operation = by_filter(matching, payload, key) if ids is None else by_ids(ids, payload, key)
        return _done(collection.update(operation), request)

    def DeletePayload(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        ids, matching = selected(request.points_selector)
        keys = list(request.keys)
        if ids is not None:
            operation = edge.UpdateOperation.delete_payload(ids, keys)
        else:
            operation = edge.UpdateOperation.delete_payload_by_filter(matching, keys)
        return _done(collection.update(operation), request)

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        number = collection.create_index(request.field_name, schema.index_info(request))
        return _done(number, request)

    def DeleteFieldIndex(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        return _done(collection.delete_index(request.field_name), request)


class Points(PointWrites):
    def _searched(self, request: Any) -> Collection:
        collection = self._store.resolve(request.collection_name)
        require_indexes(collection, request.filter)
        return collection

    def Get(self, request: Any, context: Any) -> Any:
        shard = self._store.resolve(request.collection_name).shard
        ids = [point_id(each) for each in request.ids]
        records = shard.retrieve(ids, wanted_payload(request, True), wanted_vectors(request))
        return pb.GetResponse(result=[to_retrieved(record) for record in records])

    def Scroll(self, request: Any, context: Any) -> Any:
        shard = self._searched(request).shard
        records, following = shard.scroll(searches.scroll_request(request))
        result = [to_retrieved(record) for record in records]
        offset = None if following is None else to_point_id(following)
        return pb.ScrollResponse(result=result, next_page_offset=offset)

    def Count(self, request: Any, context: Any) -> Any:
        shard = self._searched(request).shard
        exact = not request.HasField("exact") or request.exact
        count = shard.count(edge.CountRequest(exact, optional_filter(request)))
        return pb.CountResponse(result=pb.CountResult(count=count))

    def Query(self, request: Any, context: Any) -> Any:
        shard = self._searched(request).shard
        found = shard.query(searches.query_request(request, shard))
        return pb.QueryResponse(result=[to_scored(point) for point in found])

    def QueryBatch(self, request: Any, context: Any) -> Any:
        collection = self._store.resolve(request.collection_name)
        for each in request.query_points:
            require_indexes(collection, each.filter)
        shard = collection.shard
        queries = [searches.query_request(each, shard) for each in request.query_points]
        batches = shard.query_batch(edge.QueryBatchRequest(queries))
        return pb.QueryBatchResponse(
            result=[pb.BatchResult(result=[to_scored(p) for p in batch]) for batch in batches]
        )

    def Facet(self, request: Any, context: Any) -> Any:
        shard = self._searched(request).shard
        limit = request.limit if request.HasField("limit") else searches.DEFAULT_LIMIT
        found = shard.facet(
            edge.FacetRequest(request.key, limit, request.exact, optional_filter(request))
        )
        return pb.FacetResponse(
            hits=[pb.FacetHit(value=_facet_value(hit.value), count=hit.count) for hit in found.hits]
        )


def _facet_value(value: Any) -> Any:
    if isinstance(value, bool):
        return pb.FacetValue(bool_value=value)
    if isinstance(value, int):
        return pb.FacetValue(integer_value=value)
    return pb.FacetValue(string_value=value)


class SnapshotCalls(pb.SnapshotsServicer):
    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def Create(self, request: Any, context: Any) -> Any:
        made = self._snapshots.create(request.collection_name)
        return pb.CreateSnapshotResponse(snapshot_description=made.message())

    def List(self, request: Any, context: Any) -> Any:
        found = [each.message() for each in self._snapshots.all(request.collection_name)]
        return pb.ListSnapshotsResponse(snapshot_descriptions=found)

    def Delete(self, request: Any, context: Any) -> Any:
        self._snapshots.delete(request.collection_name, request.snapshot_name)
        return pb.DeleteSnapshotResponse()
