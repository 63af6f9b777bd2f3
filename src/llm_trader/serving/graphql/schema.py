"""The GraphQL schema: made from the methods and their structs, with the names of the wire.

- `rag.query_patterns` is the field `query_patterns`; names stay as they are, because the paths in
  errors and the other pages have them.
- An int is `Long`, as GraphQL's own `Int` has 32 bits and times have more.
- A list of numbers is `Numbers`, one value: a window may have 35,000 of them.
- An object whose keys are not fixed, as `horizons`, is a list of entries of `key` and `value`.
- Texts with few choices stay `String`, because `15m` is no name of an enum.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, Union, get_args, get_origin

import msgspec
import strawberry
from graphql import GraphQLError, GraphQLSchema
from msgspec import UnsetType
from strawberry.schema.config import StrawberryConfig

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.params import NoParams
from llm_trader.serving.methods import METHODS

Long = NewType("Long", int)
Numbers = NewType("Numbers", list)  # type: ignore[type-arg]

# Answers a method's field from its arguments; what the context of Strawberry's own execution is.
Call = Callable[[str, dict[str, Any]], Awaitable[Any]]

_LARGEST: Final = 1 << 63
_PREFIX: Final = "rag."
# A document asks several queries under aliases. The answers of a batch are of three types, and are
# encoded before any fields could be picked.
_NO_FIELDS: Final = frozenset({"rag.query_batch"})
FIELD_METHODS: Final = tuple(method for method in METHODS if method.name not in _NO_FIELDS)
_PLAIN: Final = (bool, float, str)


class Entry(NamedTuple):
    """A key of an object on the wire with its value."""

    key: str
    value: Any


def field_value(source: Any, name: str) -> Any:
    """The value of a field of a result."""
    value = getattr(source, name)
    if isinstance(value, dict):
        return [Entry(*item) for item in value.items()]
    return value


def method_of(field_name: str) -> str:
    return _PREFIX + field_name


def strawberry_schema(methods: Iterable[Method] = FIELD_METHODS) -> strawberry.Schema:
    """A schema with a field for each method; the context of an execution is a `Call`."""
    made = _Types()
    fields = {
        method.name.removeprefix(_PREFIX): strawberry.field(
            resolver=made.resolver(method), description=method.summary
        )
        for method in methods
    }
    query = type("Query", (), {**fields, "__annotations__": {}})
    config = StrawberryConfig(
        auto_camel_case=False, default_resolver=field_value, scalar_map=_scalars()
    )
    return strawberry.Schema(strawberry.type(query), config=config)


@cache
def graphql_schema() -> GraphQLSchema:
    """The schema for those who do not run documents by Strawberry; made in 0.3 s."""
    return strawberry_schema()._schema


def schema_text() -> str:
    return strawberry_schema().as_str() + "\n"


class _Types:
    """Strawberry's types by the structs that they are made from."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[type, Any]] = {}

    def resolver(self, method: Method) -> Callable[..., Awaitable[Any]]:
        name = method.name

        async def resolve(info: strawberry.Info, **arguments: Any) -> Any:
            call: Call = info.context
            return await call(name, arguments)

        parameters = [_parameter("info", strawberry.Info)]
        for field in msgspec.structs.fields(method.params_type or NoParams):
            described = strawberry.argument(description=_description(field.type))
            plain: Any = self._input(field.type, optional=not field.required)
            kind: Any = Annotated[plain, described]
            default = inspect.Parameter.empty if field.required else strawberry.UNSET
            parameters.append(_parameter(field.encode_name, kind, default))
        result: Any = self._output(method.result_type) | None
        signature: Any = inspect.Signature(parameters, return_annotation=result)
        signed: Any = resolve
        signed.__signature__ = signature
        signed.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": result}
        return resolve

    def _output(self, kind: Any) -> Any:
        if get_origin(kind) is dict:
            return list[self._entry(self._output(get_args(kind)[1]))]  # type: ignore[misc]
        if (shared := self._shared(kind, self._output)) is not None:
            return shared
        return self._struct(kind, kind.__name__, self._output_fields(kind), strawberry.type)

    def _input(self, kind: Any, *, optional: bool = False) -> Any:
        made = self._shared(kind, self._input)
        if made is None:
            name = kind.__name__.removesuffix("Params") + "Input"
            made = self._struct(kind, name, self._input_fields(kind), strawberry.input)
        return made | None if optional else made

    def _shared(self, kind: Any, inner: Callable[[Any], Any]) -> Any:
        """The type of what is no object; None for an object."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return inner(arguments[0])
        if origin in (Union, types.UnionType):
            options = [o for o in arguments if o not in (types.NoneType, UnsetType)]
            if len(options) != 1:
                raise ConfigurationError(f"the GraphQL schema has no type for {kind}")
            made = inner(options[0])
            return made | None if types.NoneType in arguments else made
        if origin is Literal:
            return str
        if origin in (list, tuple):
            item: Any = inner(arguments[0])
            return Numbers if item in _NUMBERS else list[item]
        if kind is int:
            return Long
        if kind in _PLAIN:
            return kind
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            raise ConfigurationError(f"the GraphQL schema has no type for {kind}")
        return None

    def _entry(self, value: Any) -> Any:
        name = f"{getattr(value, '__name__', 'Value')}Entry"
        fields = {"key": (str, None), "value": (value, None)}
        return self._struct(Entry, name, fields, strawberry.type)

    def _output_fields(self, kind: Any) -> dict[str, tuple[Any, Any]]:
        return {
            field.encode_name: (
                self._output(field.type),
                strawberry.field(description=_description(field.type)),
            )
            for field in msgspec.structs.fields(kind)
        }

    def _input_fields(self, kind: Any) -> dict[str, tuple[Any, Any]]:
        return {
            field.encode_name: (
                self._input(field.type, optional=not field.required),
                strawberry.field(
                    description=_description(field.type),
                    **({} if field.required else {"default": strawberry.UNSET}),
                ),
            )
            for field in msgspec.structs.fields(kind)
        }

    def _struct(
        self,
        kind: type,
        name: str,
        fields: Mapping[str, tuple[Any, Any]],
        declare: Callable[..., Any],
    ) -> Any:
        if name not in self._made or self._made[name][0] is not kind:
            if name in self._made:
                raise ConfigurationError(f"two types of the GraphQL schema are named {name}")
            members = {field: given for field, (_, given) in fields.items() if given is not None}
            hints = {field: hint for field, (hint, _) in fields.items()}
            plain = type(name, (), {**members, "__annotations__": hints})
            doc = kind.__doc__ and inspect.cleandoc(kind.__doc__)
            self._made[name] = kind, declare(plain, description=doc)
        return self._made[name][1]


_NUMBERS: Final = (Long, float, float | None)


def _parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _description(kind: Any) -> str | None:
    """What the wire says of a field, also where it is one of several types."""
    if get_origin(kind) is Annotated:
        for metadata in reversed(get_args(kind)[1:]):
            if described := getattr(metadata, "description", None):
                return str(described)
    inner = (_description(argument) for argument in get_args(kind) if not isinstance(argument, str))
    return next((described for described in inner if described), None)


def _scalars() -> dict[object, Any]:
    return {
        Long: strawberry.scalar(
            name="Long",
            description="A whole number of up to 64 bits, such as UTC milliseconds.",
            serialize=_same,
            parse_value=_whole_number,
        ),
        Numbers: strawberry.scalar(
            name="Numbers",
            description="A list of numbers; an unknown one is null.",
            serialize=_same,
            parse_value=_list,
        ),
    }


def _same(value: Any) -> Any:
    return value


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_LARGEST <= value < _LARGEST:
        raise GraphQLError("Long cannot represent this: it is no whole number of up to 64 bits")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise GraphQLError("Numbers cannot represent this: it is no list")
    return value
