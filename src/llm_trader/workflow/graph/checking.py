"""What is wrong with a graph beyond the shape of its files: edges, references, branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.rpc.params import closest_name
from llm_trader.workflow.graph.document import (
    AnyNode,
    Edge,
    ExecuteNode,
    GraphDocument,
    GuardNode,
    InputNode,
)
from llm_trader.workflow.graph.kinds import ScriptFunction, Signature, signature_of
from llm_trader.workflow.graph.model import (
    Binding,
    Graph,
    GraphNode,
    GraphText,
    incoming_edges,
)
from llm_trader.workflow.graph.problems import Problem
from llm_trader.workflow.graph.references import (
    NULL,
    FieldType,
    Reference,
    parse_references,
    type_along,
)
from llm_trader.workflow.graph.scenarios import (
    MOST_FALLIBLE,
    Scenario,
    describe,
    fallible,
    scenarios,
)
from llm_trader.workflow.graph.yaml_text import Path as FieldPath
from llm_trader.workflow.graph.yaml_text import Places

_MOST_NODES: Final = 100


class Located(NamedTuple):
    """A node with the places of its file; it stands there at `path`."""

    node: AnyNode
    places: Places
    path: FieldPath


def check_graph(
    document: GraphDocument,
    places: Places,
    located: Sequence[Located],
    scripts: Mapping[str, ScriptFunction],
    text: GraphText,
) -> tuple[Graph | None, list[Problem]]:
    """The graph, or everything that is wrong with it."""
    check = _Check(document, places, located, scripts)
    ordered = check.structure()
    if check.problems:
        return None, check.problems
    check.error_branches()
    check.execution()
    signatures = check.signatures()
    if check.problems:
        return None, check.problems
    nodes = check.bindings(ordered, signatures)
    if check.problems:
        return None, check.problems
    return Graph(document.name, document.description, nodes, tuple(document.edges), text), []


@dataclass
class _Check:
    document: GraphDocument
    places: Places
    located: Sequence[Located]
    scripts: Mapping[str, ScriptFunction]
    problems: list[Problem] = field(default_factory=list)
    by_name: dict[str, Located] = field(default_factory=dict)
    # The first case in which an input is unknown, by node and input.
    missing_in: dict[tuple[str, str], Scenario] = field(default_factory=dict)

    def structure(self) -> list[str]:
        """The names in the order in which the nodes run."""
        self._names()
        edges = list(self._edges())
        if self.problems:
            return []
        for name, one in self.by_name.items():
            has_edge = any(edge.to == name for edge in edges)
            if isinstance(one.node, InputNode) and has_edge:
                self._refuse(one, "type", f"{name} begins a run, so no edge may lead to it")
            elif not isinstance(one.node, InputNode) and not has_edge:
                self._refuse(one, "name", f"no edge leads to {name}, so it would never run")
        if not any(isinstance(one.node, InputNode) for one in self.located):
            self._at(("nodes",), "no node has the type input, so nothing begins a run")
        return [] if self.problems else self._order(edges)

    def error_branches(self) -> None:
        for i, edge in enumerate(self.document.edges):
            source = self.by_name[edge.source].node
            if edge.on == "error" and source.on_error != "fallback":
                self._at(
                    ("edges", i, "on"),
                    f"this edge would never be taken: onError of {edge.source} is "
                    f"{source.on_error}, not fallback",
                )
        for name, one in self.by_name.items():
            wired = any(e.source == name and e.on == "error" for e in self.document.edges)
            if one.node.on_error == "fallback" and not wired:
                self._refuse(
                    one,
                    "onError",
                    f"onError of {name} is fallback, but no edge of it has on: error; add "
                    f"{{from: {name}, to: …, on: error}} to the edges",
                )

    def execution(self) -> None:
        """At most one order per run, and none that no guard has seen."""
        executing = [one for one in self.located if isinstance(one.node, ExecuteNode)]
        for one in executing[1:]:
            self._refuse(
                one, "type", "only one node of a graph may execute, so that no run trades twice"
            )
        for one in executing:
            given = one.node.inputs.get("decision")
            try:
                references = parse_references(given) if isinstance(given, str) else ()
            except InvalidInputError:
                continue  # `bindings` says so
            sources = [self.by_name[r.node].node for r in references if r.node in self.by_name]
            if not references or not all(isinstance(node, GuardNode) for node in sources):
                self._refuse(
                    one,
                    "inputs.decision",
                    "decision must come from a node of the type guard, as in "
                    "${guard.output.decision}; nothing is executed that no guard has checked",
                )

    def signatures(self) -> dict[str, Signature]:
        found = {}
        for name, one in self.by_name.items():
            try:
                found[name] = signature = signature_of(one.node, self.scripts)
            except InvalidInputError as error:
                self._refuse(one, "function", error.message)
                continue
            names = signature.output.__struct_fields__
            for i, output in enumerate(one.node.outputs or ()):
                if output not in names:
                    self._refuse(
                        one, f"outputs[{i}]", f"{name} gives no {output}; it gives {_listed(names)}"
                    )
        return found

    def bindings(
        self, ordered: Sequence[str], signatures: Mapping[str, Signature]
    ) -> tuple[GraphNode, ...]:
        edges = tuple(self.document.edges)
        nodes = [self.by_name[name].node for name in ordered]
        if len(fallible(nodes)) > MOST_FALLIBLE:
            count = len(fallible(nodes))
            self._at(
                ("nodes",),
                f"{count} nodes have an onError other than stop; at most {MOST_FALLIBLE} can be "
                "checked",
            )
            return ()
        cases = list(scenarios(nodes, incoming_edges(list(ordered), edges)))
        before = _ancestors(ordered, edges)
        return tuple(
            GraphNode(
                self.by_name[name].node,
                signatures[name],
                self._bindings_of(self.by_name[name], signatures, before[name], cases),
            )
            for name in ordered
        )

    def _bindings_of(
        self,
        one: Located,
        signatures: Mapping[str, Signature],
        before: set[str],
        cases: Sequence[Scenario],
    ) -> dict[str, Binding]:
        node = one.node
        wanted = msgspec.structs.fields(signatures[node.name].inputs)
        hints = get_type_hints(signatures[node.name].inputs, include_extras=True)
        bindings: dict[str, Binding] = {}
        for name, given in node.inputs.items():
            if name not in hints:
                close = closest_name(name, hints)
                hint = f"did you mean {close}?" if close else f"it takes {_listed(hints)}"
                self._refuse(one, f"inputs.{name}", f"{node.name} takes no input {name}; {hint}")
                continue
            try:
                kind, binding = self._source(one, name, given, signatures, before, cases)
            except InvalidInputError as error:
                self._refuse(one, f"inputs.{name}", error.message)
                continue
            bindings[name] = binding
            if binding.references:
                self._check_type(one, name, kind, FieldType.of(hints[name]))
            else:
                self._check_constant(one, name, given, hints[name])
        for needed in wanted:
            if needed.required and needed.name not in node.inputs:
                self._refuse(one, "inputs", f"{node.name} needs an input {needed.name}")
        return bindings

    def _source(
        self,
        one: Located,
        name: str,
        given: Any,
        signatures: Mapping[str, Signature],
        before: set[str],
        cases: Sequence[Scenario],
    ) -> tuple[FieldType, Binding]:
        """The type that an input gets, null included where it may be unknown."""
        references = parse_references(given) if isinstance(given, str) else ()
        if not references:
            return NULL, Binding((), given)
        kinds = []
        for reference in references:
            self._check_source(one.node.name, reference, before)
            kinds.append(type_along(reference, signatures[reference.node].output))
        result, *others = kinds
        for other in others:
            result = result.known() | other
        own = one.node.name
        for case in cases:
            if case[own] != "skipped" and not any(_is_known(r, case) for r in references):
                result = result | NULL
                self.missing_in[(own, name)] = case
                break
        return result, Binding(references)

    def _check_source(self, own: str, reference: Reference, before: set[str]) -> None:
        source = reference.node
        if source not in self.by_name:
            close = closest_name(source, self.by_name)
            hint = f"; did you mean {close}?" if close else f"; there are {_listed(self.by_name)}"
            raise InvalidInputError(f"there is no node {source}{hint}")
        if source not in before:
            raise InvalidInputError(
                f"{source} does not run before {own}; edges have to lead from it to {own}"
            )
        outputs = self.by_name[source].node.outputs
        named = reference.fields[:1] if reference.part == "output" else ()
        if outputs is not None and named and named[0] not in outputs:
            raise InvalidInputError(
                f"{source} does not list {named[0]} among its outputs ({_listed(outputs)})"
            )
        if reference.part == "error" and self.by_name[source].node.on_error == "stop":
            raise InvalidInputError(
                f"a run ends where {source} fails (onError: stop), so nobody can read its error"
            )

    def _check_type(self, one: Located, name: str, kind: FieldType, wanted: FieldType) -> None:
        if kind.fits(wanted):
            return
        if kind.known().fits(wanted) and kind.may_be_unknown:
            case = self.missing_in.get((one.node.name, name))
            when = describe(case) if case else "at times"
            reason = (
                f"{name} of {one.node.name} would be unknown {when}; name another source with ??, "
                "as in ${a.output.b ?? c.output.d}"
            )
        else:
            reason = f"{name} of {one.node.name} is {wanted}, but this gives {kind}"
        self._refuse(one, f"inputs.{name}", reason)

    def _check_constant(self, one: Located, name: str, given: Any, hint: Any) -> None:
        try:
            msgspec.convert(given, hint)
        except msgspec.ValidationError as error:
            reason = f"{name} of {one.node.name}: {str(error)[:1].lower()}{str(error)[1:]}"
            self._refuse(one, f"inputs.{name}", reason)

    def _names(self) -> None:
        if len(self.located) > _MOST_NODES:
            self._at(("nodes",), f"a graph has at most {_MOST_NODES} nodes")
        for one in self.located:
            if one.node.name in self.by_name:
                first = self.by_name[one.node.name]
                place = first.places.of((*first.path, "name"))
                self._refuse(one, "name", f"{one.node.name} is also the name of a node at {place}")
            else:
                self.by_name[one.node.name] = one

    def _edges(self) -> Iterator[Edge]:
        seen: set[Edge] = set()
        for i, edge in enumerate(self.document.edges):
            for key, name in (("from", edge.source), ("to", edge.to)):
                if name not in self.by_name:
                    close = closest_name(name, self.by_name)
                    hint = f"did you mean {close}?" if close else f"one of {_listed(self.by_name)}"
                    self._at(("edges", i, key), f"there is no node {name}; {hint}")
            if edge in seen:
                self._at(("edges", i), f"this edge from {edge.source} to {edge.to} stands twice")
            seen.add(edge)
            yield edge

    def _order(self, edges: Sequence[Edge]) -> list[str]:
        """Each node after those that lead to it; otherwise as they stand in the file."""
        waiting = list(self.by_name)
        ordered: list[str] = []
        while waiting:
            blocked = {edge.to for edge in edges if edge.source in waiting}
            free = next((name for name in waiting if name not in blocked), None)
            if free is None:
                circle = [i for i, e in enumerate(edges) if {e.source, e.to} <= set(waiting)]
                self._at(
                    ("edges", circle[-1]),
                    f"edges lead in a circle through {_listed(waiting)}; a run has to end",
                )
                return []
            waiting.remove(free)
            ordered.append(free)
        return ordered

    def _refuse(self, one: Located, key: str, reason: str) -> None:
        self.problems.append(Problem(one.places.of_field(key, one.path), reason))

    def _at(self, path: FieldPath, reason: str) -> None:
        self.problems.append(Problem(self.places.of(path), reason))


def _ancestors(ordered: Sequence[str], edges: Sequence[Edge]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in ordered}
    for name in ordered:
        for edge in edges:
            if edge.to == name:
                found[name] |= {edge.source} | found[edge.source]
    return found


def _is_known(reference: Reference, case: Scenario) -> bool:
    return case[reference.node] == ("done" if reference.part == "output" else "failed")


def _listed(names: Any) -> str:
    return ", ".join(names)
