"""Files whose default places were in `data/` before 0.1.0, and are in `var/` now.

One that lies at its old place is never passed over: it may be the books of an account, or a kill
switch that is on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llm_trader.errors import ConfigurationError

KILL_SWITCH: Final = Path("var/kill-switch")
PAPER_LEDGER: Final = Path("var/paper.sqlite")
ORDER_JOURNAL: Final = Path("var/orders.sqlite")

# Where each was, and its setting.
_FORMER: Final = {
    KILL_SWITCH: (Path("data/kill-switch"), "workflow.guards.kill_switch"),
    PAPER_LEDGER: (Path("data/paper.sqlite"), "workflow.paper.ledger"),
    ORDER_JOURNAL: (Path("data/orders.sqlite"), "workflow.exchange.journal"),
}


def refuse_old_place(path: Path) -> None:
    """Raises `ConfigurationError` where `path` is a default without a file, and the old one has.

    A file at the new place, or another path in the settings, is the user's answer.
    """
    if path not in _FORMER or path.exists():
        return
    old, setting = _FORMER[path]
    if not old.exists():
        return
    raise ConfigurationError(
        f"{setting} is {path} by default, where there is no file, but there is one at its former "
        f'place {old}: stop all its processes and move it ("mkdir -p {path.parent} && mv {old}* '
        f'{path.parent}/"), or set {setting} = "{old}"'
    )
