"""A graph that was checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from llm_trader.workflow.graph.document import AnyNode, Edge
from llm_trader.workflow.graph.kinds import Signature
from llm_trader.workflow.graph.references import Reference


class Binding(NamedTuple):
    """Where an input comes from: the first known of `references`, or `constant` without any."""

    references: tuple[Reference, ...] = ()
    constant: Any = None


class GraphText(Struct, frozen=True):
    """The files of a graph by their path from the main one, which is `main`.

    A run keeps it, so that it ends on the graph that it began with.
    """

    main: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all files."""
        document = msgspec.json.encode(self, order="deterministic")
        return hashlib.sha256(document).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class GraphNode:
    document: AnyNode
    signature: Signature
    bindings: Mapping[str, Binding]

    @property
    def name(self) -> str:
        return self.document.name


@dataclass(frozen=True, eq=False)
class Graph:
    """`nodes` stand in the order in which they run."""

    name: str
    description: str | None
    nodes: tuple[GraphNode, ...]
    edges: tuple[Edge, ...]
    text: GraphText

    @cached_property
    def digest(self) -> str:
        return self.text.digest

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        return incoming_edges([node.name for node in self.nodes], self.edges)


def incoming_edges(names: list[str], edges: tuple[Edge, ...]) -> dict[str, tuple[Edge, ...]]:
    return {name: tuple(edge for edge in edges if edge.to == name) for name in names}
