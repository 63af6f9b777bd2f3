"""The `.CHECKSUM` beside each file of the archive, as sha256sum writes it."""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *]?(\S+)")


def parse_checksum(text: str, name: str) -> str | None:
    """The SHA-256 of the file of this name in small hex digits; None where the text has none."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match and match[2].rpartition("/")[2] == name:
            return match[1].lower()
    return None
