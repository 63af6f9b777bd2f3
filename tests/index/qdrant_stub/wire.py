"""Qdrant's gRPC messages, without the rest of the client, whose import takes a second."""

from __future__ import annotations

import importlib.util
import sys
import types

if "qdrant_client" not in sys.modules:
    spec = importlib.util.find_spec("qdrant_client")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("qdrant_client is not installed")
    bare = types.ModuleType("qdrant_client")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["qdrant_client"] = bare

from qdrant_client import grpc as pb

__all__ = ["pb"]
