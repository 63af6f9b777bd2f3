"""Anthropic's SDK: its client."""

from __future__ import annotations

from typing import Final

import anthropic

from llm_trader.llm.providers.sdk_connection import SdkConnection

ANTHROPIC_URL: Final = "https://api.anthropic.com"
SDK: Final = f"anthropic {anthropic.__version__}"


def anthropic_client(
    connection: SdkConnection, *, base_url: str | None, key: str | None, max_retries: int
) -> anthropic.AsyncAnthropic:
    """Address and key are always named, or the SDK would look for others in the environment."""
    return anthropic.AsyncAnthropic(
        api_key=key,
        base_url=base_url or ANTHROPIC_URL,
        max_retries=max_retries,
        timeout=connection.http.timeout,
        http_client=connection.http,
    )
