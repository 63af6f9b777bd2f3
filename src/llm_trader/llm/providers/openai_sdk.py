"""OpenAI's SDK: its client, for their own interface and for compatible ones."""

from __future__ import annotations

from typing import Final

import openai

from llm_trader.llm.providers.sdk_connection import SdkConnection

OPENAI_URL: Final = "https://api.openai.com/v1"
SDK: Final = f"openai {openai.__version__}"


def openai_client(
    connection: SdkConnection, *, base_url: str | None, key: str | None, max_retries: int
) -> openai.AsyncOpenAI:
    """Address and key are always named, or the SDK would look for others in the environment."""
    return openai.AsyncOpenAI(
        api_key=key or "none",
        base_url=base_url or OPENAI_URL,
        max_retries=max_retries,
        timeout=connection.http.timeout,
        http_client=connection.http,
    )
