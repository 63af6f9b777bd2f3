"""What stands before every gRPC call: counting, faults and delays on demand, the API key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from .errors import QdrantError, from_engine, unauthorized
from .store import Store


@dataclass
class Fault:
    calls: int
    code: str = "UNAVAILABLE"
    methods: list[str] = field(default_factory=list)
    applied: bool = False
    retry_after_s: int | None = None


@dataclass
class Delay:
    milliseconds: float = 0.0
    methods: list[str] = field(default_factory=list)


class Mischief:
    """The faults that tests ordered, and the calls that were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._delay = Delay()
        self._calls: Counter[str] = Counter()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def slow_down(self, delay: Delay) -> None:
        self._delay = delay

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self._delay = Delay()

    def count(self, method: str) -> None:
        with self._lock:
            self._calls[method] += 1

    def calls(self) -> dict[str, int]:
        with self._lock:
            return dict(sorted(self._calls.items()))

    def forget_calls(self) -> None:
        with self._lock:
            self._calls.clear()

    def wait(self, method: str) -> None:
        if not self._delay.methods or method in self._delay.methods:
            time.sleep(self._delay.milliseconds / 1000)

    def due(self, method: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.calls > 0 and (not fault.methods or method in fault.methods):
                    fault.calls -= 1
                    return fault
        return None


class Gate(grpc.ServerInterceptor):
    def __init__(self, store: Store, mischief: Mischief, api_key: str | None) -> None:
        self._store = store
        self._mischief = mischief
        self._api_key = api_key

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        # "/qdrant.Points/Query"
        method = details.method.removeprefix("/qdrant.")
        given = _key_of(details.invocation_metadata)
        refused = self._api_key is not None and given != self._api_key

        def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
            self._mischief.count(method)
            self._mischief.wait(method)
            if refused:
                _abort(context, unauthorized(given))
            fault = self._mischief.due(method)
            if fault is not None and not fault.applied:
                _fail(context, fault)
            reply = self._call(handler.unary_unary, request, context)
            if fault is not None:
                _fail(context, fault)
            return reply

        return grpc.unary_unary_rpc_method_handler(
            behaviour, handler.request_deserializer, handler.response_serializer
        )

    def _call(self, call: Callable[..., Any], request: Any, context: grpc.ServicerContext) -> Any:
        start = time.perf_counter()
        try:
            with self._store.lock:
                reply = call(request, context)
        except QdrantError as error:
            _abort(context, error)
        except NotImplementedError:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the stub does not know this call")
        except Exception as error:  # noqa: BLE001 - the engine raises nothing more precise
            _abort(context, from_engine(error))
        if "time" in reply.DESCRIPTOR.fields_by_name:
            reply.time = time.perf_counter() - start
        return reply


def _key_of(metadata: Any) -> str | None:
    for name, value in metadata:
        if name == "api-key":
            return value
        if name == "authorization" and value.startswith("Bearer "):
            return value.removeprefix("Bearer ")
    return None


def _abort(context: grpc.ServicerContext, error: QdrantError) -> None:
    context.abort(error.code, error.message)


def _fail(context: grpc.ServicerContext, fault: Fault) -> None:
    if fault.retry_after_s is not None:
        context.set_trailing_metadata((("retry-after", str(fault.retry_after_s)),))
    context.abort(grpc.StatusCode[fault.code], f"ordered by the test: {fault.code}")
