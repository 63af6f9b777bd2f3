"""What is wrong with a graph, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_trader.errors import ConfigurationError


class Place(NamedTuple):
    """`line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(NamedTuple):
    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class GraphError(ConfigurationError):
    """Correct the graph: every mistake is named with its file, line and column."""

    code = "graph"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)), problems=[str(one) for one in problems])
        self.problems = list(problems)
