"""Write the sample answer of the README: what `llm-trader demo` prints at 80 columns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
_DEMO = "import sys; from llm_trader.cli.main import main; sys.argv[1:] = ['demo']; main()"
_BEFORE = "<!-- Written by scripts/readme_sample.py -->\n```\n"
_AFTER = "```\n"


def sample() -> str:
    """The answer in the output of the demo, from its verdict to its matches."""
    with tempfile.TemporaryDirectory() as folder:
        shown = subprocess.run(
            [sys.executable, "-c", _DEMO],
            env={**os.environ, "COLUMNS": "80"},
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    start, end = shown.index("Verdict: "), shown.index("\n5. The server has stopped")
    return "".join(f"{line.rstrip()}\n" for line in shown[start:end].splitlines())


def shown_in(readme: str) -> str:
    """The sample in the text of a README."""
    return readme.partition(_BEFORE)[2].partition(_AFTER)[0]


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, marker, rest = text.partition(_BEFORE)
    after = rest.partition(_AFTER)[2]
    README.write_text(before + marker + sample() + _AFTER + after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
