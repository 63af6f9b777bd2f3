"""The examples of prompts, which the TypeScript client reads as well."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_trader.llm.prompt.render import Arm, PromptOptions
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.snapshot.model import MarketSnapshot

FOLDER: Final = Path(__file__).resolve().parents[2] / "golden/prompt"
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "numbers")


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    template_version: str
    has_evidence: bool
    system: list[str]
    user: list[str]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`snapshot` and `result` as on the wire, and the lines of the prompt."""

    arm: Arm
    options: PromptOptions
    snapshot: MarketSnapshot
    result: Retrieved | None
    prompt: Expected


def example(name: str) -> Example:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Example)


def numbers() -> dict[str, list[list[Any]]]:
    loaded: dict[str, list[list[Any]]] = json.loads((FOLDER / "numbers.json").read_text())
    return loaded


# As OpenAI's tokenizer o200k_base cuts a text before it merges: words with what precedes them, up
# to three digits, and runs of other characters.
_PIECES: Final = re.compile(
    r"[^\r\n\w]?[A-Za-z]+|\d{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", re.ASCII
)


def estimated_tokens(text: str) -> int:
    """The pieces of a text, words of more than eight letters twice.

    Within 1 % of o200k_base for prompts of the default size, and 5 % above the tokenizer that
    Anthropic published.
    """
    pieces = _PIECES.findall(text)
    return sum(-(-len(piece.strip()) // 8) if piece[-1].isalpha() else 1 for piece in pieces)
