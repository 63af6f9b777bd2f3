"""References between nodes, `${node.output.field}`, and the types along them."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from llm_trader.errors import InvalidInputError
from llm_trader.rpc.params import closest_name
from llm_trader.workflow.values import NodeError

_WHOLE: Final = re.compile(r"\$\{([^{}]*)\}")
_ONE: Final = re.compile(r"([a-z][a-z0-9_]*)\.(output|error)((?:\.[A-Za-z_][A-Za-z0-9_]*)*)")


class Reference(NamedTuple):
    """A field of a node's `output`, or of its `error`."""

    node: str
    part: Literal["output", "error"]
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.node, self.part, *self.fields))


def parse_references(text: str) -> tuple[Reference, ...]:
    """The references of an input in order of preference; none where it is a plain text.

    Raises `InvalidInputError` for what is almost a reference.
    """
    if "${" not in text:
        return ()
    whole = _WHOLE.fullmatch(text.strip())
    if whole is None:
        raise InvalidInputError(
            f"{text!r} mixes text and references; an input is one ${{node.output.field}}, and a "
            "script can put texts together"
        )
    found = []
    for part in whole[1].split("??"):
        match = _ONE.fullmatch(part.strip())
        if match is None:
            raise InvalidInputError(
                f"{part.strip()!r} is no reference; write ${{node.output.field}}, or "
                "${node.error.message} for why a node failed"
            )
        fields = tuple(match[3].split(".")[1:])
        found.append(Reference(match[1], "output" if match[2] == "output" else "error", fields))
    return tuple(found)


class FieldType(NamedTuple):
    """`options` are the types that a value may have; None is among them if it may be unknown."""

    options: tuple[Any, ...]

    @classmethod
    def of(cls, hint: Any) -> FieldType:
        return cls(tuple(dict.fromkeys(_options(hint))))

    @property
    def may_be_unknown(self) -> bool:
        return type(None) in self.options or Any in self.options

    def known(self) -> FieldType:
        return FieldType(tuple(one for one in self.options if one is not type(None)))

    def __or__(self, other: FieldType) -> FieldType:
        return FieldType(tuple(dict.fromkeys((*self.options, *other.options))))

    def __str__(self) -> str:
        return " or ".join(_name(one) for one in self.options)

    def fits(self, wanted: FieldType) -> bool:
        return all(any(_fits(one, other) for other in wanted.options) for one in self.options)


NULL: Final = FieldType((type(None),))


def type_along(reference: Reference, output: type[Struct]) -> FieldType:
    """The type of what a reference names. Raises `InvalidInputError` for an unknown field."""
    current = FieldType((output if reference.part == "output" else NodeError,))
    path = f"{reference.node}.{reference.part}"
    for name in reference.fields:
        current = _step(current, name, path)
        path += f".{name}"
    return current


def value_along(value: Any, fields: tuple[str, ...]) -> Any:
    """None where something on the way is unknown."""
    for name in fields:
        if value is None:
            return None
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    return value


def _step(current: FieldType, name: str, path: str) -> FieldType:
    result: list[Any] = []
    for option in current.options:
        if option is type(None) or option is Any:
            result.append(option)
        elif get_origin(option) is dict:
            result += [*_options(get_args(option)[1]), type(None)]
        elif isinstance(option, type) and issubclass(option, Struct):
            hints = {f.name: f.type for f in msgspec.structs.fields(option)}
            if name not in hints:
                close = closest_name(name, hints)
                hint = f"did you mean {close}?" if close else f"it has {', '.join(hints)}"
                raise InvalidInputError(f"{path} has no field {name}; {hint}")
            result += _options(hints[name])
        else:
            raise InvalidInputError(f"{path} is {_name(option)}, which has no fields")
    return FieldType(tuple(dict.fromkeys(result)))


def _options(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return _options(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [option for part in get_args(hint) for option in _options(part)]
    return [hint]


def _fits(given: Any, wanted: Any) -> bool:
    if wanted is Any or given is Any or given == wanted:
        return True
    if get_origin(given) is Literal:
        allowed = get_args(wanted) if get_origin(wanted) is Literal else None
        return all(
            _fits(type(one), wanted) if allowed is None else one in allowed
            for one in get_args(given)
        )
    if given is int and wanted is float:
        return True
    if isinstance(given, type) and isinstance(wanted, type):
        return issubclass(given, wanted)
    if get_origin(given) in (list, dict) and get_origin(given) is get_origin(wanted):
        return all(
            FieldType.of(one).fits(FieldType.of(other))
            for one, other in zip(get_args(given), get_args(wanted), strict=True)
        )
    return False


_NAMES: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _name(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if kind in _NAMES:
        return _NAMES[kind]
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
