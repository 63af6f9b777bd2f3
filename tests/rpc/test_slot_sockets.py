"""Listening sockets that several processes have in common."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.slot_sockets import HTTP, TCP, SlotSockets


def test_all_slots_of_a_door_have_one_port_and_port_0_takes_a_free_one() -> None:
    with closing(SlotSockets.bound(RpcConfig(port=0), 3)) as sockets:
        for door in (TCP, HTTP):
            ports = {s.getsockname()[1] for s in sockets.of(door, range(3))}
            assert ports == {sockets.address(door)[1]}
        assert sockets.address(TCP) != sockets.address(HTTP)


def test_without_http_there_is_no_door_of_it() -> None:
    with closing(SlotSockets.bound(RpcConfig(port=0, http=False), 2)) as sockets:
        assert TCP in sockets
        assert HTTP not in sockets


def test_nobody_is_accepted_before_the_sockets_listen() -> None:
    with closing(SlotSockets.bound(RpcConfig(port=0, http=False), 2)) as sockets:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sockets.address(TCP))
        sockets.listen()
        socket.create_connection(sockets.address(TCP)).close()


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_of_another_server_is_refused_instead_of_shared_with_it(shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = RpcConfig(port=other.getsockname()[1], http=False)
        with pytest.raises(ConfigurationError, match="is another server running there"):
            SlotSockets.bound(config, 2)


def test_the_kernel_deals_connections_to_all_slots() -> None:
    with closing(SlotSockets.bound(RpcConfig(port=0, http=False), 2)) as sockets:
        sockets.listen()
        clients = [socket.create_connection(sockets.address(TCP)) for _ in range(64)]
        accepted = []
        for slot in range(2):
            (listening,) = sockets.of(TCP, [slot])
            count = 0
            try:
                while True:
                    listening.accept()[0].close()
                    count += 1
            except BlockingIOError:
                accepted.append(count)
        for client in clients:
            client.close()
    assert sum(accepted) == 64
    assert min(accepted) > 8  # of 32; fewer by chance once in 10^10
