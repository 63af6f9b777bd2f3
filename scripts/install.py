"""Installs this project into the environment of the Python that runs it, with progress.

`python scripts/install.py requirements/demo.txt`: the pinned packages of the file, each checked
against its hashes, then the project itself. Only the standard library is needed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
SHOWN_OF_AN_ERROR = 20


def install(requirements: Path) -> None:
    """Exits with pip's code and its last lines where it fails."""
    lines = requirements.read_text("utf-8").splitlines()
    total = sum("==" in line for line in lines)
    progress = Progress(total)
    # Unpacking begins after the last package was fetched, and says nothing until it is done.
    # Compiling all 10,000 modules would take half a minute; what is imported is compiled then.
    run([*PIP, "--no-compile", "--require-hashes", "-r", str(requirements)], progress)
    run([*PIP, "--no-deps", "--no-build-isolation", "--editable", "."], None)
    progress.end(f"{total} packages are installed")


class Progress:
    """One line that is written over on a terminal, else a line for every tenth package."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._terminal = sys.stdout.isatty()

    def see(self, line: str) -> None:
        if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied")):
            self._done += 1
            self._show(f"  fetching package {self._done} of {self._total}")
        elif line.startswith("Installing collected packages"):
            self._done = 0
            self._show("  unpacking (the longest part)")

    def end(self, text: str) -> None:
        self._done = 0
        self._show(f"  {text}")
        if self._terminal:
            print()

    def _show(self, text: str) -> None:
        if self._terminal:
            print(f"\r{text:<60}", end="", flush=True)
        elif self._done % 10 == 0:
            print(text, flush=True)


def run(command: list[str], progress: Progress | None) -> None:
    told: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            told.append(line.rstrip())
            if progress:
                progress.see(line.strip())
    if pip.returncode:
        print("", *told[-SHOWN_OF_AN_ERROR:], sep="\n", file=sys.stderr)
        sys.exit(pip.returncode)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
