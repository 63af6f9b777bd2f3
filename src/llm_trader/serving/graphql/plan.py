"""Plans an operation: its fields without fragments and directives, each of them once.

Fragments multiply what a short document asks for, so the limits count what is left without them. No
type of the schema is abstract, so a valid fragment applies wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

import msgspec
from graphql import (
    DirectiveNode,
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    SelectionNode,
    SelectionSetNode,
    get_named_type,
    print_ast,
)
from graphql.execution.values import get_argument_values

from llm_trader.rpc.errors import FieldError, InvalidParamsError, InvalidRequestError
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.graphql.document import Operation, RefusedDocumentError

# All fields of the schema are some 400; planning one takes 3 µs.
_MAX_SELECTIONS: Final = 2000
_SWITCHES: Final = {
    "skip": (GraphQLSkipDirective, False),
    "include": (GraphQLIncludeDirective, True),
}


class PlannedField(msgspec.Struct, frozen=True):
    """A field to answer under `key`; `fields` is None for one without fields of its own."""

    key: str
    name: str
    parent: str
    definition: GraphQLField
    arguments: dict[str, Any]
    fields: list[PlannedField] | None
    node: FieldNode


class Planner:
    """Plans one operation. Raises `RefusedDocumentError`."""

    def __init__(self, schema: GraphQLSchema, operation: Operation, config: ServingConfig) -> None:
        self._schema = schema
        self._operation = operation
        self._max_depth = config.graphql_max_depth
        self._max_aliases = config.graphql_max_aliases
        self._selections = self._aliases = 0

    def fields(self) -> list[PlannedField]:
        query = self._schema.query_type
        if query is None:
            return []
        return self._fields_of(query, [self._operation.definition.selection_set], 1)

    def _fields_of(
        self, parent: GraphQLObjectType, selection_sets: Iterable[SelectionSetNode], depth: int
    ) -> list[PlannedField]:
        nodes: dict[str, list[FieldNode]] = {}
        seen: set[str] = set()
        for selection_set in selection_sets:
            self._collect(selection_set.selections, nodes, seen)
        if nodes and depth > self._max_depth:
            self._refuse(
                f"the document is more than {self._max_depth} levels deep "
                "(serving.graphql_max_depth); ask for less at once",
                next(iter(nodes.values()))[0],
            )
        return [self._field(parent, key, same, depth) for key, same in nodes.items()]

    def _field(
        self, parent: GraphQLObjectType, key: str, nodes: list[FieldNode], depth: int
    ) -> PlannedField:
        node = nodes[0]
        for other in nodes[1:]:
            if _identity(other) != _identity(node):
                self._refuse(
                    f"{key!r} stands for two different fields; give one of them an alias", other
                )
        definition = self._schema.get_field(parent, node.name.value)
        if definition is None:  # validation refuses it
            self._refuse(f"{parent.name} has no field {node.name.value!r}", node)
        try:
            arguments = get_argument_values(definition, node, self._operation.variables)
        except GraphQLError as error:
            flaws = [FieldError(node.name.value, error.message)]
            raise RefusedDocumentError(InvalidParamsError(flaws), [error]) from None
        kind = get_named_type(definition.type)
        fields = None
        if isinstance(kind, GraphQLObjectType):
            inner = [n.selection_set for n in nodes if n.selection_set is not None]
            fields = self._fields_of(kind, inner, depth + 1)
        return PlannedField(key, node.name.value, parent.name, definition, arguments, fields, node)

    def _collect(
        self, selections: Iterable[SelectionNode], nodes: dict[str, list[FieldNode]], seen: set[str]
    ) -> None:
        for selection in selections:
            self._count(selection)
            if not self._is_included(selection):
                continue
            if isinstance(selection, FieldNode):
                key = (selection.alias or selection.name).value
                nodes.setdefault(key, []).append(selection)
            elif isinstance(selection, InlineFragmentNode):
                self._collect(selection.selection_set.selections, nodes, seen)
            elif (name := getattr(selection, "name").value) not in seen:  # noqa: B009  a spread
                seen.add(name)
                fragment = self._operation.fragments[name]
                self._collect(fragment.selection_set.selections, nodes, seen)

    def _count(self, node: SelectionNode) -> None:
        self._selections += 1
        self._aliases += isinstance(node, FieldNode) and node.alias is not None
        if self._aliases > self._max_aliases:
            self._refuse(
                f"the document has more than {self._max_aliases} aliases "
                "(serving.graphql_max_aliases), fragments counted wherever they are used; send "
                "several documents",
                node,
            )
        if self._selections > _MAX_SELECTIONS:
            self._refuse(
                f"the document selects more than {_MAX_SELECTIONS} fields, fragments counted "
                "wherever they are used; send several documents",
                node,
            )

    def _is_included(self, node: SelectionNode) -> bool:
        for directive in node.directives or ():
            switch = _SWITCHES.get(directive.name.value)
            if switch is not None and self._condition(switch[0], directive) is not switch[1]:
                return False
        return True

    def _condition(self, definition: Any, directive: DirectiveNode) -> bool:
        try:
            values = get_argument_values(definition, directive, self._operation.variables)
        except GraphQLError as error:
            flaws = [FieldError(f"@{directive.name.value}", error.message)]
            raise RefusedDocumentError(InvalidParamsError(flaws), [error]) from None
        return bool(values["if"])

    def _refuse(self, flaw: str, node: SelectionNode) -> NoReturn:
        raise RefusedDocumentError(InvalidRequestError(flaw), [GraphQLError(flaw, node)])


def _identity(node: FieldNode) -> tuple[str, list[str]]:
    """What makes two fields the same: the name and the arguments, in any order."""
    return node.name.value, sorted(map(print_ast, node.arguments or ()))
