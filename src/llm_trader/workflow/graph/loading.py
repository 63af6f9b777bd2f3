"""Reads a graph, and names every mistake in it with file, line and column.

1. The main file and the files of its nodes are parsed, and compared with the shapes of `document`.
2. `checking` compares edges, references and their types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.errors import InvalidParamsError
from llm_trader.rpc.params import ParamsDecoder
from llm_trader.workflow.graph.checking import Located, check_graph
from llm_trader.workflow.graph.document import (
    NODE_TYPES,
    GraphDocument,
    ToolNode,
)
from llm_trader.workflow.graph.kinds import ScriptFunction
from llm_trader.workflow.graph.model import Graph, GraphText
from llm_trader.workflow.graph.problems import GraphError, Problem
from llm_trader.workflow.graph.yaml_text import Parsed, Places, parse_yaml
from llm_trader.workflow.graph.yaml_text import Path as FieldPath

S = TypeVar("S", bound=msgspec.Struct)


def load_graph(path: Path, scripts: Mapping[str, ScriptFunction]) -> Graph:
    """Raises `GraphError` with all mistakes, or `ConfigurationError` for a file that is missing."""
    return _load(path.name, path.parent.as_posix(), scripts, lambda name: _read(path.parent / name))


def graph_of_text(text: GraphText, scripts: Mapping[str, ScriptFunction]) -> Graph:
    """The graph of a run that began with these files."""

    def read(name: str) -> str:
        if name not in text.files:
            raise ConfigurationError(f"{name} is not among the stored files")
        return text.files[name]

    return _load(text.main, f"stored graph {text.digest}", scripts, read)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _load(
    main: str, folder: str, scripts: Mapping[str, ScriptFunction], read: Callable[[str], str]
) -> Graph:
    loading = _Loading(folder, read)
    document, places = loading.main(main)
    nodes = loading.nodes(document, places) if document is not None and places else []
    if loading.problems or document is None or places is None:
        raise GraphError(loading.problems)
    graph, problems = check_graph(document, places, nodes, scripts, GraphText(main, loading.files))
    if problems or graph is None:
        raise GraphError(problems)
    return graph


@dataclass
class _Loading:
    folder: str
    read: Callable[[str], str]
    files: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def main(self, name: str) -> tuple[GraphDocument | None, Places | None]:
        parsed = self._parse(name)
        if parsed is None:
            return None, None
        return self._shaped(GraphDocument, parsed.value, parsed.places, ()), parsed.places

    def nodes(self, document: GraphDocument, places: Places) -> list[Located]:
        found = []
        for i, raw in enumerate(document.nodes):
            path: FieldPath = ("nodes", i)
            if isinstance(raw, dict) and "file" in raw:
                located = self._included(raw, places, path)
            else:
                located = self._node(raw, places, path)
            if located is not None:
                found.append(located)
        return found

    def _included(self, raw: dict[str, Any], places: Places, path: FieldPath) -> Located | None:
        name = raw["file"]
        place = places.of((*path, "file"))
        if len(raw) > 1:
            other = next(key for key in raw if key != "file")
            reason = f"{other} belongs into the file of the node, beside its name"
            self.problems.append(Problem(places.of((*path, other)), reason))
            return None
        parts = PurePosixPath(name) if isinstance(name, str) else None
        if parts is None or parts.is_absolute() or ".." in parts.parts:
            reason = "file should be the path of a file in the folder of the graph or below it"
            self.problems.append(Problem(place, reason))
            return None
        try:
            parsed = self._parse(parts.as_posix())
        except LlmTraderError as error:
            self.problems.append(Problem(place, error.message))
            return None
        return None if parsed is None else self._node(parsed.value, parsed.places, ())

    def _node(self, raw: Any, places: Places, path: FieldPath) -> Located | None:
        if not isinstance(raw, dict):
            self.problems.append(Problem(places.of(path), "a node is a list of keys and values"))
            return None
        kind = raw.get("type")
        node_type = NODE_TYPES.get(kind) if isinstance(kind, str) else None
        if node_type is None:
            known = ", ".join(NODE_TYPES)
            reason = "type is required" if kind is None else f"there is no type {kind!r}"
            self.problems.append(Problem(places.of((*path, "type")), f"{reason}; one of {known}"))
            return None
        content = {key: value for key, value in raw.items() if key != "type"}
        node = self._shaped(node_type, content, places, path)
        if node is None:
            return None
        if isinstance(node, ToolNode):
            self._check_query(node, places, (*path, "config", "query"))
        return Located(node, places, path)  # type: ignore[arg-type]

    def _check_query(self, node: ToolNode, places: Places, path: FieldPath) -> None:
        try:
            spec = self._shaped(SearchSpec, node.config.query, places, path)
        except LlmTraderError as error:  # fields that contradict each other
            self.problems.append(Problem(places.of(path), error.message))
            return
        if spec is not None and spec.detail == "brief":
            reason = "a prompt needs more than a brief answer; leave detail out"
            self.problems.append(Problem(places.of((*path, "detail")), reason))

    def _parse(self, name: str) -> Parsed | None:
        text = self.files[name] = self.read(name)
        parsed, problems = parse_yaml(text, f"{self.folder}/{name}")
        self.problems += problems
        if parsed is not None and not isinstance(parsed.value, dict):
            self.problems.append(
                Problem(parsed.places.of(()), "the file should hold keys and values")
            )
            return None
        return parsed

    def _shaped(self, kind: type[S], value: Any, places: Places, path: FieldPath) -> S | None:
        unknown: list[str] = []
        fields: list[tuple[str, str]] = []
        shaped: S | None = None
        try:
            shaped = ParamsDecoder(kind).decode(msgspec.json.encode(value), unknown)
        except InvalidParamsError as error:
            fields += [(one.field, one.error) for one in error.details["errors"]]
        # With a hint in brackets, if a name is close.
        for name in unknown:
            fields.append(
                (name.partition(" ")[0], f"is not known{name[len(name.split(' ')[0]) :]}")
            )
        for name, reason in fields:
            self.problems.append(Problem(places.of_field(name, path), f"{name} {reason}".strip()))
        return None if fields else shaped
