"""A server's messages in the words of the command line: flags instead of parameters."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Final

from llm_trader.cli.pipeline import QueryOptions
from llm_trader.rpc.keys import KEY_BY_CALL

# The first that matches is taken, so whole phrases come first.
_FLAGS: Final = {
    KEY_BY_CALL: "put your key into an environment variable and name that with --auth-tokens-env",
    "include_regime_filters = false": "--no-regime-filters",
    "send current_state": "give it with --state",
    "current_state": "--state",
    "query_config.include_regime_filters": "--regime-filters",
    **{
        f"{prefix}{field.name}": f"--{field.name.replace('_', '-')}"
        for prefix in ("query_config.", "")
        for field in fields(QueryOptions)
        if prefix or "_" in field.name
    },
}
_NAMES: Final = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?!\w)" for name in _FLAGS))


def in_flags(message: str) -> str:
    return _NAMES.sub(lambda match: _FLAGS[match[0]], message)
