"""Collections and aliases on disk: the engine's own files, and a little JSON beside them.

folder/aliases.json
folder/collections/<name>/collection.json   the creating request and the payload indexes
folder/collections/<name>/shard/            the engine's files
folder/snapshots/<name>/*.snapshot
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import qdrant_edge as edge
from google.protobuf import json_format

from . import schema
from .errors import already_exists, no_collection, not_found, wrong_input
from .wire import pb


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all, whenever the process is killed."""
    half = path.with_suffix(".half")
    half.write_text(json.dumps(content, indent=1))
    os.replace(half, path)


def as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


class Collection:
    """One collection. What was asked for is kept as it came, and given back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = unquote(folder.name)
        kept = json.loads((folder / "collection.json").read_text())
        self.request = json_format.ParseDict(kept["request"], pb.CreateCollection())
        self.indexes = {
            key: json_format.ParseDict(info, pb.PayloadSchemaInfo())
            for key, info in kept["indexes"].items()
        }
        self.shard = edge.EdgeShard.load(str(folder / "shard"))
        self.operations = 0

    @classmethod
    def create(cls, folder: Path, request: pb.CreateCollection) -> Collection:
        config = schema.engine_config(request)
        folder.mkdir(parents=True)
        edge.EdgeShard.create(str(folder / "shard"), config).close()
        # Last: a folder without this file is a creation that was cut short.
        write_json(folder / "collection.json", {"request": as_json(request), "indexes": {}})
        return cls(folder)

    @property
    def sizes(self) -> dict[str, int]:
        return schema.vector_sizes(self.request.vectors_config)

    def keep(self) -> None:
        indexes = {key: as_json(info) for key, info in self.indexes.items()}
        kept = {"request": as_json(self.request), "indexes": indexes}
        write_json(self.folder / "collection.json", kept)

    def update(self, operation: edge.UpdateOperation) -> int:
        self.shard.update(operation)
        self.operations += 1
        return self.operations

    def create_index(self, key: str, info: pb.PayloadSchemaInfo) -> int:
        number = self.update(
            edge.UpdateOperation.create_field_index(key, schema.engine_index(info))
        )
        self.indexes[key] = info
        self.keep()
        return number

    def delete_index(self, key: str) -> int:
        number = self.update(edge.UpdateOperation.delete_field_index(key))
        self.indexes.pop(key, None)
        self.keep()
        return number

    def change(self, diff: pb.UpdateCollection) -> None:
        request = self.request
        request.hnsw_config.MergeFrom(diff.hnsw_config)
        request.optimizers_config.MergeFrom(diff.optimizers_config)
        if diff.HasField("strict_mode_config"):
            request.strict_mode_config.MergeFrom(diff.strict_mode_config)
        for key, value in diff.metadata.items():
            request.metadata[key].CopyFrom(value)
        for name in ("replication_factor", "write_consistency_factor", "on_disk_payload"):
            if diff.params.HasField(name):
                setattr(request, name, getattr(diff.params, name))
        self._change_vectors(diff.vectors_config)
        self.keep()

    def _change_vectors(self, diff: pb.VectorsConfigDiff) -> None:
        changes = dict(diff.params_map.map)
        if diff.WhichOneof("config") == "params":
            changes = {"": diff.params}
        vectors = schema.vector_params(self.request.vectors_config)
        for name, change in changes.items():
            if name not in vectors:
                raise wrong_input(f"Not existing vector name error: {name}")
            vectors[name].hnsw_config.MergeFrom(change.hnsw_config)
            if change.HasField("on_disk"):
                vectors[name].on_disk = change.on_disk

    def info(self) -> pb.CollectionInfo:
        shard = self.shard.info()
        described = {}
        for key, info in self.indexes.items():
            described[key] = pb.PayloadSchemaInfo()
            described[key].CopyFrom(info)
            described[key].points = shard.payload_schema[key].points
        return pb.CollectionInfo(
            status=pb.CollectionStatus.Green,
            optimizer_status=pb.OptimizerStatus(ok=True),
            segments_count=shard.segments_count,
            points_count=shard.points_count,
            indexed_vectors_count=shard.indexed_vectors_count,
            config=self._config(),
            payload_schema=described,
        )

    def _config(self) -> pb.CollectionConfig:
        request = self.request
        params = pb.CollectionParams(
            shard_number=request.shard_number or 1,
            on_disk_payload=request.on_disk_payload
            if request.HasField("on_disk_payload")
            else True,
            vectors_config=request.vectors_config,
            replication_factor=request.replication_factor or 1,
            write_consistency_factor=request.write_consistency_factor or 1,
        )
        config = pb.CollectionConfig(
            params=params,
            hnsw_config=schema.with_defaults(schema.HNSW, request.hnsw_config),
            optimizer_config=schema.with_defaults(schema.OPTIMIZERS, request.optimizers_config),
            wal_config=schema.with_defaults(schema.WAL, request.wal_config),
            metadata=request.metadata,
        )
        for name in ("quantization_config", "strict_mode_config"):
            if request.HasField(name):
                getattr(config, name).CopyFrom(getattr(request, name))
        return config


class Store:
    """All collections. Calls take `lock`: the engine works on one thing at a time anyway."""

    def __init__(self, folder: Path, peers: int = 1) -> None:
        self.folder = folder
        self.peers = peers
        self.lock = threading.RLock()
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.iterdir():
            if (path / "collection.json").exists():
                collection = Collection(path)
                self.collections[collection.name] = collection
            else:
                shutil.rmtree(path)
        if self._aliases_file.exists():
            self.aliases = json.loads(self._aliases_file.read_text())

    @property
    def _root(self) -> Path:
        return self.folder / "collections"

    @property
    def _aliases_file(self) -> Path:
        return self.folder / "aliases.json"

    def path(self, name: str) -> Path:
        return self._root / quote(name, safe="")

    @property
    def restoring(self) -> Path:
        return self.folder / "restoring"

    def snapshots_path(self, name: str) -> Path:
        return self.folder / "snapshots" / quote(name, safe="")

    def resolve(self, name: str) -> Collection:
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise no_collection(name)
        return found

    def create(self, request: pb.CreateCollection) -> None:
        name = request.collection_name
        if name in self.collections:
            raise already_exists(name)
        if name in self.aliases:
            raise wrong_input(
                f"Can't create collection with name {name}. Alias with the same name already exists"
            )
        self.collections[name] = Collection.create(self.path(name), request)

    def drop(self, name: str) -> bool:
        collection = self.collections.pop(name, None)
        if collection is None:
            return False
        self._keep_aliases({a: c for a, c in self.aliases.items() if c != name})
        self.discard(collection)
        return True

    def discard(self, collection: Collection) -> None:
        # Without this file the folder counts for nothing, should the process die half-way.
        (collection.folder / "collection.json").unlink()
        collection.shard.close()
        shutil.rmtree(collection.folder)

    def change_aliases(self, actions: Iterable[pb.AliasOperations]) -> None:
        """All of them or none, and nobody sees a state between."""
        aliases = dict(self.aliases)
        for action in actions:
            self._apply(action, aliases)
        self._keep_aliases(aliases)

    def _apply(self, action: pb.AliasOperations, aliases: dict[str, str]) -> None:
        kind = action.WhichOneof("action")
        if kind == "create_alias":
            create = action.create_alias
            if create.collection_name not in self.collections:
                raise no_collection(create.collection_name)
            if create.alias_name in self.collections:
                raise already_exists(create.alias_name)
            aliases[create.alias_name] = create.collection_name
        elif kind == "rename_alias":
            rename = action.rename_alias
            if rename.old_alias_name not in aliases:
                raise not_found(f"Alias {rename.old_alias_name} does not exists!")
            if rename.new_alias_name in self.collections:
                raise already_exists(rename.new_alias_name)
            aliases[rename.new_alias_name] = aliases.pop(rename.old_alias_name)
        elif kind == "delete_alias":
            aliases.pop(action.delete_alias.alias_name, None)

    def _keep_aliases(self, aliases: dict[str, str]) -> None:
        write_json(self._aliases_file, aliases)
        self.aliases = aliases

    def close(self) -> None:
        for collection in self.collections.values():
            collection.shard.close()
