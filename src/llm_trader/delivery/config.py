"""Settings of the delivery of snapshots."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Check


class IntakeAddress(Struct, frozen=True):
    """Where an intake listens, and the environment variable that holds its token, if it has one."""

    host: str
    port: int
    token_env: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


# Capitals only, so that a token pasted here by mistake is most likely refused.
_INTAKE = re.compile(r"(?:([A-Z_][A-Z0-9_]*)@)?(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:@/,]+):(\d{1,5})")


def parse_intake(text: str) -> IntakeAddress:
    """Raises `ValueError` with the rest of "the value …"."""
    match = _INTAKE.fullmatch(text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError("should be HOST:PORT, or VARIABLE_OF_THE_TOKEN@HOST:PORT")
    return IntakeAddress(match[2].strip("[]"), int(match[3]), match[1])


def _parsable(text: str) -> str:
    parse_intake(text)
    return text


class DeliveryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sending the state of each symbol at each interval boundary."""

    intakes: Annotated[
        tuple[Annotated[str, Check(_parsable, secret=True)], ...],
        Meta(
            description="Addresses that snapshots are sent to, HOST:PORT each; where one asks for "
            "a token, NAME@HOST:PORT, NAME being the environment variable that holds it.",
            examples=[["127.0.0.1:7880"]],
        ),
    ] = ()
    max_wait_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="Seconds after a boundary that are waited for its data; then the snapshot "
            "is made without what is late.",
        ),
    ] = 10.0
    deadline_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Seconds after a boundary at which its snapshot is given up.",
        ),
    ] = 120.0
    attempt_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=600, description="Seconds without a reply after which it is sent again."),
    ] = 10.0
