"""What the stub says of its cluster. All data is in one process, whatever the peers."""

from __future__ import annotations

from typing import Any

from .store import Collection
from .wire import pb

FIRST_PEER = 1_000_001


def cluster_of(collection: Collection, peers: int) -> pb.CollectionClusterInfoResponse:
    """Shards are dealt out to the peers in turn, each with its replicas on the next ones."""
    shards = collection.request.shard_number or 1
    replicas = min(collection.request.replication_factor or 1, peers)
    points = collection.shard.info().points_count
    reply = pb.CollectionClusterInfoResponse(peer_id=FIRST_PEER, shard_count=shards)
    for shard in range(shards):
        for replica in range(replicas):
            peer = (shard + replica) % peers
            if peer == 0:
                # The engine does not split a collection: the first shard reports all points.
                mine = points if shard == 0 else 0
                reply.local_shards.add(
                    shard_id=shard, points_count=mine, state=pb.ReplicaState.Active
                )
            else:
                reply.remote_shards.add(
                    shard_id=shard, peer_id=FIRST_PEER + peer, state=pb.ReplicaState.Active
                )
    return reply


def cluster_json(info: pb.CollectionClusterInfoResponse) -> dict[str, Any]:
    local = [
        {"shard_id": s.shard_id, "points_count": s.points_count, "state": "Active"}
        for s in info.local_shards
    ]
    remote = [
        {"shard_id": s.shard_id, "peer_id": s.peer_id, "state": "Active"}
        for s in info.remote_shards
    ]
    return {
        "peer_id": info.peer_id,
        "shard_count": info.shard_count,
        "local_shards": local,
        "remote_shards": remote,
        "shard_transfers": [],
    }


def peers_json(peers: int) -> dict[str, Any]:
    if peers == 1:
        return {"status": "disabled"}
    known = {
        str(FIRST_PEER + peer): {"uri": f"http://peer-{peer}.invalid:6335/"}
        for peer in range(peers)
    }
    return {
        "status": "enabled",
        "peer_id": FIRST_PEER,
        "peers": known,
        "raft_info": {
            "term": 1,
            "commit": 1,
            "pending_operations": 0,
            "leader": FIRST_PEER,
            "role": "Leader",
            "is_voter": True,
        },
        "consensus_thread_status": {
            "consensus_thread_status": "working",
            "last_update": "2026-01-01T00:00:00Z",
        },
        "message_send_failures": {},
    }
