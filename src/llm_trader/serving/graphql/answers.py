"""Picks the planned fields from the result of a method, or from the schema itself."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from graphql import (
    GraphQLLeafType,
    GraphQLList,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
)

from llm_trader.errors import InvalidInputError
from llm_trader.serving.graphql.plan import PlannedField
from llm_trader.serving.graphql.schema import field_value

# A whole answer has 600. So many take 25 ms.
MAX_VALUES: Final = 50_000
# What tools ask about the schema has 5,000. These take 2 µs each, and have no turns of their own.
MAX_SCHEMA_VALUES: Final = 20_000
# Numbers in a list are encoded at once, in the time of one value.
_NUMBERS_PER_VALUE: Final = 50

_TYPE_NAME: Final = "__typename"


class Picker:
    """Picks values for one call, or for what a document asks about the schema."""

    def __init__(self, schema: GraphQLSchema, max_values: int | None = None) -> None:
        """`max_values` is by default `MAX_VALUES`."""
        self._info: Any = SimpleNamespace(schema=schema)
        self._most = self._left = MAX_VALUES if max_values is None else max_values

    def fields(self, source: Any, fields: Sequence[PlannedField]) -> dict[str, Any]:
        """Raises `InvalidInputError` if they are too many."""
        self._take(len(fields))
        return {field.key: self.value(source, field) for field in fields}

    def value(self, source: Any, field: PlannedField) -> Any:
        if field.name == _TYPE_NAME:
            return field.parent
        # The types of introspection have resolvers of their own.
        if field.name.startswith("__") or field.parent.startswith("__"):
            resolve: Any = field.definition.resolve
            return self.complete(resolve(source, self._info, **field.arguments), field)
        return self.complete(field_value(source, field.name), field)

    def complete(self, value: Any, field: PlannedField) -> Any:
        """The value with its planned fields."""
        if value is None:
            return None
        is_list = isinstance(get_nullable_type(field.definition.type), GraphQLList)
        if field.fields is not None:
            if not is_list:
                return self.fields(value, field.fields)
            return [self.fields(item, field.fields) for item in value]
        if field.parent.startswith("__"):
            kind = get_named_type(field.definition.type)
            return [_serialized(kind, i) for i in value] if is_list else _serialized(kind, value)
        if isinstance(value, list | tuple):
            self._take(len(value) // _NUMBERS_PER_VALUE)
        return value

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise InvalidInputError(
                f"the answer has more than {self._most} values; select fewer fields, or fewer "
                "matches with top_k"
            )


def _serialized(kind: Any, value: Any) -> Any:
    leaf: GraphQLLeafType = kind
    return leaf.serialize(value)
