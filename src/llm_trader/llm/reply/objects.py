"""The JSON objects of a reply: alone, in a fence, or after prose, but never before any."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from llm_trader.llm.reply.error import ReplyError

# An object that begins within a line of prose is quoted or talked about.
_LINE_START: Final = re.compile(r"^[ \t]*(?=\{)", re.MULTILINE)
_FENCES: Final = ("", "```", "~~~")
# Each may be scanned to the end of the text.
_MOST_OBJECTS: Final = 20


class FinalObject(NamedTuple):
    """The object that a reply ends with, and the prose before it."""

    fields: dict[str, Any]
    prose: str


def final_object(text: str) -> FinalObject | None:
    """The one object with an `action`; None for a text without any object.

    Raises `ReplyError` where it is not the end of the text, where another one differs from it, or
    where any object cannot be read.
    """
    found = _objects(text)
    if not found:
        return None
    decisions = [fields for fields, _, _ in found if "action" in fields]
    if not decisions:
        raise ReplyError("unreadable", "the JSON object has no action")
    if any(fields != decisions[0] for fields in decisions):
        raise ReplyError("ambiguous", "it has several JSON objects that differ; give one")
    fields, _, end = found[-1]
    if "action" not in fields or text[end:].strip() not in _FENCES:
        raise ReplyError(
            "ambiguous", "text follows the JSON object and may take it back; end with the object"
        )
    return FinalObject(fields, text[: found[0][1]])


def _objects(text: str) -> list[tuple[dict[str, Any], int, int]]:
    """All objects that begin a line, with their start and end."""
    objects: list[tuple[dict[str, Any], int, int]] = []
    position = 0
    while match := _LINE_START.search(text, position):
        if len(objects) == _MOST_OBJECTS:
            raise ReplyError("ambiguous", "it has many JSON objects; give one")
        fields, position = _decode(text, match.end())
        objects.append((fields, match.end(), position))
    return objects


def _decode(text: str, start: int) -> tuple[dict[str, Any], int]:
    try:
        return _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ReplyError("unreadable", "its JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ReplyError(
            "unreadable", f"its JSON is not valid: {error.msg} (line {error.lineno})"
        ) from None
    except ValueError:  # a number with thousands of digits
        raise ReplyError("unreadable", "a number in its JSON is too long") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ReplyError("ambiguous", "its JSON object has the same key twice")
    return fields


def _refuse_constant(name: str) -> None:
    raise ReplyError("unreadable", f"{name} is not JSON; give a number or null")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
)
