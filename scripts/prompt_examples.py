"""Write the prompts of the examples in tests/golden/prompt anew; with --check, only compare.

A text that changes needs another `TEMPLATE_VERSION`, because the record of a decision names it.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llm_trader.llm.prompt.render import TEMPLATE_VERSION, Arm, PromptOptions, render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.snapshot.model import MarketSnapshot

FOLDER = Path(__file__).resolve().parents[1] / "tests/golden/prompt"


class Example(msgspec.Struct):
    """What a prompt is made of, as on the wire, and its text as lists of lines."""

    arm: Arm
    options: PromptOptions
    snapshot: dict[str, Any]
    result: dict[str, Any] | None
    prompt: dict[str, Any] = {}

    def render(self) -> dict[str, Any]:
        snapshot = msgspec.convert(self.snapshot, MarketSnapshot)
        retrieved = None if self.result is None else msgspec.convert(self.result, Retrieved)
        prompt = render_prompt(self.arm, snapshot, retrieved, self.options)
        return {
            "template_version": prompt.template_version,
            "has_evidence": prompt.has_evidence,
            "system": prompt.system.split("\n"),
            "user": prompt.user.split("\n"),
        }


class Problem(NamedTuple):
    path: Path
    difference: str


def read(path: Path) -> Example:
    return msgspec.json.decode(path.read_bytes(), type=Example)


def example_paths() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.json") if path.name != "numbers.json")


def update(path: Path, check: bool) -> Problem | None:
    example = read(path)
    before, after = example.prompt, example.render()
    if before == after:
        return None
    old, new = (prompt.get("system", []) + prompt.get("user", []) for prompt in (before, after))
    difference = "\n".join(difflib.unified_diff(old, new, lineterm="", n=1))
    if check or before.get("template_version") == TEMPLATE_VERSION:
        return Problem(path, difference)
    example.prompt = after
    path.write_text(written(example), encoding="utf-8")
    return None


def written(example: Example) -> str:
    """The prompt line by line, what it is made of in one line each."""
    fields = msgspec.to_builtins(example)
    parts = [
        f" {json.dumps(key)}: {json.dumps(value, indent=2 if key == 'prompt' else None)}"
        for key, value in fields.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    check = parser.parse_args().check
    problems = [problem for path in example_paths() if (problem := update(path, check))]
    for path, difference in problems:
        print(f"{path.name} differs:\n{difference}", file=sys.stderr)
    if problems:
        sys.exit(f"raise TEMPLATE_VERSION, now {TEMPLATE_VERSION}, and run this script again")


if __name__ == "__main__":
    main()
