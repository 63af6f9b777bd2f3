"""Settings of the audit log."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llm_trader.config_types import Folder
from llm_trader.storage.chain.lines import ChainConfig


class AuditConfig(ChainConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log of requests; `llm-trader audit verify` finds what was changed in it."""

    folder: Annotated[
        Folder | None,
        Meta(
            description="Folder of the audit log; without one there is none.",
            examples=["var/audit"],
        ),
    ] = None
