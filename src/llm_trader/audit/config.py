"""Settings of the audit log."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Folder


class AuditConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log of requests; `llm-trader audit verify` finds what was changed in it."""

    folder: Annotated[
        Folder | None,
        Meta(
            description="Folder of the audit log; without one there is none.",
            examples=["var/audit"],
        ),
    ] = None
    max_file_mib: Annotated[
        int, Meta(ge=1, le=4096, description="Size at which a next file is begun, MiB.")
    ] = 64
    keep_files: Annotated[
        int,
        Meta(ge=0, le=100_000, description="Number of files to keep, the newest; 0 keeps all."),
    ] = 50
