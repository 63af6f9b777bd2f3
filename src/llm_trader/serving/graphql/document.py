"""Reads GraphQL requests: what is refused before anything is run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OverlappingFieldsCanBeMergedRule,
    get_variable_values,
    parse,
    specified_rules,
    validate,
)
from graphql.execution.values import VariableValues

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.envelope import UNREADABLE, parse_error
from llm_trader.rpc.errors import FieldError, InvalidParamsError, InvalidRequestError, ParseError
from llm_trader.serving.config import ServingConfig

# Coercing variables takes 1 µs for each byte at worst; a state has 4 KB.
_MAX_REQUEST_BYTES: Final = 1 << 16
# Of the document alone: the parser reads 5 characters in a microsecond.
_MAX_DOCUMENT_CHARS: Final = 1 << 14
# Some 1 MB each while they are kept.
_DOCUMENTS_KEPT: Final = 32
_MAX_ERRORS: Final = 5


class GraphQlRequest(msgspec.Struct, rename="camel"):
    """The body of a request."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class Operation(msgspec.Struct, frozen=True):
    """The operation to run, with the fragments and variables that it uses."""

    definition: OperationDefinitionNode
    fragments: dict[str, FragmentDefinitionNode]
    variables: VariableValues


class RefusedDocumentError(Exception):
    """A document that is not run: `reason` has the code; `errors` are its flaws, if there are more
    to say.
    """

    def __init__(self, reason: LlmTraderError, errors: Sequence[GraphQLError] = ()) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.errors = errors


class DocumentReader:
    """Keeps the documents that it has validated: clients send the same ones again and again."""

    def __init__(self, schema: GraphQLSchema, config: ServingConfig) -> None:
        self._schema = schema
        self._max_tokens = config.graphql_max_tokens
        # A suggestion tells names as well.
        self._hide_suggestions = not config.graphql_introspection
        # This rule compares all pairs of fields, which takes seconds for a document that asks for
        # one field again and again; the plan finds the same in one pass.
        self._rules = [r for r in specified_rules if r is not OverlappingFieldsCanBeMergedRule]
        if not config.graphql_introspection:
            self._rules.append(NoSchemaIntrospectionCustomRule)
        self._validated = lru_cache(_DOCUMENTS_KEPT)(self._parsed_and_validated)

    def read(self, body: bytes) -> Operation:
        """Raises `RefusedDocumentError`."""
        request = _decoded(body)
        try:
            document = self._validated(request.query)
            return self._operation(document, request)
        except RecursionError as error:
            raise RefusedDocumentError(parse_error(error)) from None

    def _parsed_and_validated(self, query: str) -> DocumentNode:
        try:
            document = parse(
                query,
                max_lexical_tokens=self._max_tokens,
                max_comments=self._max_tokens,
                max_source_length=_MAX_DOCUMENT_CHARS,
            )
        except GraphQLError as error:
            raise RefusedDocumentError(ParseError(error.message), [error]) from None
        hide = self._hide_suggestions
        errors = validate(self._schema, document, self._rules, _MAX_ERRORS, hide_suggestions=hide)
        if errors:
            raise RefusedDocumentError(InvalidRequestError(errors[0].message), errors)
        return document

    def _operation(self, document: DocumentNode, request: GraphQlRequest) -> Operation:
        definitions = document.definitions
        fragments = {d.name.value: d for d in definitions if isinstance(d, FragmentDefinitionNode)}
        operations = {
            d.name.value if d.name else "": d
            for d in definitions
            if isinstance(d, OperationDefinitionNode)
        }
        definition = _chosen(operations, request.operation_name)
        declared = definition.variable_definitions or ()
        given = request.variables or {}
        variables = get_variable_values(self._schema, declared, given, _MAX_ERRORS)
        if isinstance(variables, list):
            flaws = [FieldError("variables", error.message) for error in variables]
            raise RefusedDocumentError(InvalidParamsError(flaws), variables)
        return Operation(definition, fragments, variables)


def _decoded(body: bytes) -> GraphQlRequest:
    if len(body) > _MAX_REQUEST_BYTES:
        size = f"a GraphQL request has at most {_MAX_REQUEST_BYTES >> 10} KiB, not {len(body)} B"
        raise RefusedDocumentError(InvalidRequestError(size))
    if body.lstrip()[:1] == b"[":
        advice = "batches are not answered; ask for several fields in one document"
        raise RefusedDocumentError(InvalidRequestError(advice))
    try:
        return msgspec.json.decode(body, type=GraphQlRequest)
    except msgspec.ValidationError as error:
        flaw = f'{error}; send {{"query": "…", "variables": {{…}}}}'
        raise RefusedDocumentError(InvalidRequestError(flaw)) from None
    except UNREADABLE as error:
        raise RefusedDocumentError(parse_error(error)) from None


def _chosen(
    operations: dict[str, OperationDefinitionNode], name: str | None
) -> OperationDefinitionNode:
    if not name and len(operations) == 1:
        return next(iter(operations.values()))
    if name in operations:
        return operations[name]
    if name:
        flaw = f"operationName: the document has no operation {name[:100]!r}"
    elif operations:
        flaw = "operationName: is required, as the document has several operations"
    else:
        flaw = "the document has no operation"
    raise RefusedDocumentError(InvalidRequestError(flaw))
