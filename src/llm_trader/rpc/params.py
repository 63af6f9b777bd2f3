"""Decodes parameters from JSON into a `msgspec.Struct`, strictly first, then with explanations.

If the strict decode fails, a second look goes field by field: it collects all errors, ignores
unknown fields, and accepts an integral float (`1730811225000.0`, as some languages write integers)
as an integer.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from llm_trader.rpc.errors import FieldError, InvalidParamsError

# A reply stays under some 10 KB, and difflib under a millisecond, whatever a client sends.
_MAX_REPORTED: Final = 50
MAX_NAME_CHARS: Final = 64
# The second look takes 15 µs for each item.
MAX_ITEMS: Final = 1000
# How msgspec ends its messages.
_LOCATION: Final = re.compile(r" - at `\$\.?(.*)`$")


# It belongs to the request rather than to the method.
_BY_NAME_ONLY: Final = "timeout_ms"

Timeout = Annotated[
    int,
    Meta(
        ge=1,
        le=600_000,
        description="Milliseconds from the arrival of the request to error -32013; the server's "
        "own deadline holds as well.",
    ),
]


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a method that needs none."""

    timeout_ms: Timeout | None = None


class _AnyParams(msgspec.Struct):
    timeout_ms: Timeout | None = None


_ANY_PARAMS: Final = msgspec.json.Decoder(_AnyParams)


def timeout_ms(raw: bytes) -> int | None:
    """The `timeout_ms` of parameters by name, before they are decoded; a wrong one is none."""
    if b'"timeout_ms"' not in raw:
        return None
    try:
        return _ANY_PARAMS.decode(raw).timeout_ms
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the method's own decoder says why


class ParamsDecoder:
    """Decodes the `params` of one method, by name or by position, into its struct."""

    def __init__(self, params_type: type[msgspec.Struct]) -> None:
        self._type = params_type
        self._names = [name for name in _fields(params_type) if name != _BY_NAME_ONLY]
        self._strict = _forbids_unknown_fields(params_type)
        self._decoder = msgspec.json.Decoder(params_type)

    def decode(self, raw: bytes, unknown_fields: list[str]) -> Any:
        """The struct; dotted paths of fields it does not know are appended to `unknown_fields`.

        Raises `InvalidParamsError` with every field error, or `msgspec.DecodeError` if `raw` is
        not JSON.
        """
        if self._strict:
            try:
                return self._decoder.decode(raw)
            except msgspec.ValidationError:
                pass  # the second look explains it, or tolerates it
        try:
            value = msgspec.json.decode(raw)
        except msgspec.ValidationError:
            raise InvalidParamsError([FieldError("", "a number is out of range")]) from None
        if isinstance(value, list):
            if len(value) > len(self._names):
                error = f"{len(value)} positional parameters, at most {len(self._names)} are known"
                raise InvalidParamsError([FieldError("", error)])
            value = dict(zip(self._names, value, strict=False))
        review = _Review(unknown_fields)
        cleaned = review.struct(self._type, value, "")
        if not review.errors:
            try:
                return msgspec.convert(cleaned, self._type)
            except msgspec.ValidationError as error:
                review.errors.append(_field_error("", error))
        raise InvalidParamsError(review.errors, unknown_fields)


class _Review:
    """One pass over plain JSON values and their types; returns values that convert."""

    def __init__(self, unknown_fields: list[str]) -> None:
        self.errors: list[FieldError] = []
        self._unknown_fields = unknown_fields

    def struct(self, kind: type[msgspec.Struct], value: dict[str, Any], path: str) -> Any:
        fields = _fields(kind)
        unsent = [name for name in fields if name not in value]
        renamed = self._set_unknown_aside(value.keys() - fields.keys(), unsent, path)
        cleaned: dict[str, Any] = {}
        for name, field in fields.items():
            if name in value:
                cleaned[name] = self._value(field.type, value[name], _join(path, name))
            elif field.required:
                hint = f" (did {renamed[name]!r} mean it?)" if name in renamed else ""
                self._refuse(FieldError(_join(path, name), f"is required{hint}"))
        return cleaned

    def _set_unknown_aside(
        self, unknown: Iterable[str], unsent: Sequence[str], path: str
    ) -> dict[str, str]:
        """Records unknown fields; maps the names that they seem to mean to the names sent."""
        renamed = {}
        for name in sorted(unknown)[: _MAX_REPORTED - len(self._unknown_fields)]:
            shown = name[:MAX_NAME_CHARS]
            close = closest_name(name, unsent)
            hint = f" (did you mean {close}?)" if close else ""
            self._unknown_fields.append(_join(path, shown) + hint)
            if close:
                renamed[close] = shown
        return renamed

    def _value(self, kind: Any, value: Any, path: str) -> Any:
        for option in _options(kind):
            if isinstance(value, dict) and _is_struct(option):
                return self.struct(option, value, path)
            if isinstance(value, list) and get_origin(option) is list:
                if len(value) > MAX_ITEMS:
                    self._refuse(FieldError(path, f"has {len(value)} items, more than {MAX_ITEMS}"))
                    return value
                (item,) = get_args(option)
                return [self._value(item, v, f"{path}[{i}]") for i, v in enumerate(value)]
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            if isinstance(value, float) and value.is_integer():
                return self._value(kind, int(value), path)
            self._refuse(_field_error(path, error))
        return value

    def _refuse(self, error: FieldError) -> None:
        # A long array of faults must not fill the memory.
        if len(self.errors) < _MAX_REPORTED:
            self.errors.append(error)


def closest_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` most likely misspells, if any is close."""
    if len(name) > MAX_NAME_CHARS:
        return None
    # At 0.75 "rsi7" suggests rsi_7; at 0.6 most names would suggest some other.
    similar = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.75)
    return similar[0] if similar else None


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """By the name on the wire. Their types are evaluated each time that msgspec is asked."""
    return {f.encode_name: f for f in msgspec.structs.fields(kind)}


@cache
def _options(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone, without `Annotated`."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(option for arg in get_args(kind) for option in _options(arg))
    return (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _field_error(path: str, error: msgspec.ValidationError) -> FieldError:
    text = str(error)
    location = _LOCATION.search(text)
    if location:
        text = text[: location.start()]
        path = _join(path, location[1])
    return FieldError(path, (text[:1].lower() + text[1:]).replace("`", ""))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and not name.startswith("[") else path + name


def _forbids_unknown_fields(kind: Any) -> bool:
    """Whether every struct within forbids unknown fields, so that one decode cannot miss any."""
    inner = get_args(kind)
    if _is_struct(kind):
        if not kind.__struct_config__.forbid_unknown_fields:
            return False
        inner = tuple(field.type for field in _fields(kind).values())
    return all(map(_forbids_unknown_fields, inner))
