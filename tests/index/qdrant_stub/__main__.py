"""`python -m tests.index.qdrant_stub --folder DIR`: serve until standard input ends."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import grpc

from .faults import Gate, Mischief
from .rest import Rest, serve
from .services import Collections, Health, Points, SnapshotCalls
from .snapshots import Snapshots
from .store import Store
from .wire import pb


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="qdrant_stub", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--api-key")
    parser.add_argument("--peers", type=int, default=1, help="how many the cluster claims")
    return parser.parse_args()


def grpc_server(store: Store, gate: Gate) -> grpc.Server:
    server = grpc.server(
        ThreadPoolExecutor(max_workers=32),
        interceptors=[gate],
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    pb.add_QdrantServicer_to_server(Health(), server)
    pb.add_CollectionsServicer_to_server(Collections(store), server)
    pb.add_PointsServicer_to_server(Points(store), server)
    pb.add_SnapshotsServicer_to_server(SnapshotCalls(Snapshots(store)), server)
    return server


def stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    given = arguments()
    signal.signal(signal.SIGTERM, stop)
    store, mischief = Store(given.folder, given.peers), Mischief()
    server = grpc_server(store, Gate(store, mischief, given.api_key))
    grpc_port = server.add_insecure_port(f"127.0.0.1:{given.grpc_port}")
    server.start()
    rest = serve(Rest(store, mischief, given.api_key), given.http_port)
    ports = {"grpc_port": grpc_port, "http_port": rest.server_port}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    try:
        sys.stdin.read()
    finally:
        server.stop(grace=0).wait()
        with store.lock:
            store.close()


if __name__ == "__main__":
    main()
