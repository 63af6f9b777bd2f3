"""YAML as plain values, with the place of each in its file.

Scalars are those of YAML 1.2: `on` and `yes` are text. Duplicate keys, aliases and tags of one's
own are refused, as they hide what a graph says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from llm_trader.errors import ConfigurationError
from llm_trader.workflow.graph.problems import Place, Problem

Path = tuple[str | int, ...]

_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_FIELD: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class Parsed(NamedTuple):
    """`places` has those of keys and items; the root is `()`."""

    value: Any
    places: Places


@dataclass(frozen=True, slots=True)
class Places:
    by_path: dict[Path, Place]

    def of(self, path: Path) -> Place:
        """The place of a value, or of the nearest value that it would stand in."""
        while path not in self.by_path:
            path = path[:-1]
        return self.by_path[path]

    def of_field(self, field: str, start: Path = ()) -> Place:
        """The same for a path as in `config.rpc.port` or `edges[2].to`."""
        parts = [int(i) if i else name for i, name in _FIELD.findall(field)]
        return self.of((*start, *parts))


def parse_yaml(text: str, file: str) -> tuple[Parsed | None, list[Problem]]:
    """The value of a file, or what is wrong with it."""
    yaml = _library()
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"this is not YAML: {error.problem or error.context}"
        return None, [Problem(_place(file, mark), reason)]
    except yaml.YAMLError as error:  # a character that YAML does not allow
        return None, [Problem(Place(file, 1, 1), f"this is not YAML: {error}")]
    if root is None:
        return None, [Problem(Place(file, 1, 1), "the file is empty")]
    reading = _Reading(yaml, file)
    value = reading.value(root, ())
    if reading.problems:
        return None, reading.problems
    return Parsed(value, Places(reading.places)), []


class _Reading:
    def __init__(self, yaml: Any, file: str) -> None:
        self._yaml = yaml
        self._file = file
        self._seen: set[int] = set()
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []

    def value(self, node: Any, path: Path) -> Any:
        place = _place(self._file, node.start_mark)
        self.places.setdefault(path, place)
        # An alias is the node of its anchor once more.
        if id(node) in self._seen:
            self.problems.append(Problem(place, "aliases (*name) are not allowed; write it out"))
            return None
        self._seen.add(id(node))
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, self._yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = _place(self._file, key_node.start_mark)
            key = key_node.value if isinstance(key_node.value, str) else None
            if key is None:
                self.problems.append(Problem(place, "a key must be text"))
            elif key in values:
                self.problems.append(Problem(place, f"{key} stands here twice"))
            else:
                self.places[(*path, key)] = place
                values[key] = self.value(value_node, (*path, key))
        return values


def _scalar(node: Any) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _place(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)


def _library() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            f"workflows are written in YAML, which needs PyYAML ({error}): "
            "pip install 'llm-trader-rag[workflow]'"
        ) from error
    return yaml
