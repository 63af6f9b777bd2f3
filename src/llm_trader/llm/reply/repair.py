"""The one attempt at repair: a model sees its own reply and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.llm.prompt.system import REPLY_FORM
from llm_trader.llm.providers.protocol import Message
from llm_trader.llm.reply.error import ReplyError

# A longer reply is shown in part: it would cost more than the prompt.
_MOST_CHARACTERS: Final = 4_000


def repair_messages(
    messages: Sequence[Message], reply_text: str, error: ReplyError
) -> tuple[Message, ...]:
    """The messages of a request, then the reply and what to do better."""
    shown = reply_text.strip().encode(errors="replace").decode()
    if len(shown) > _MOST_CHARACTERS:
        shown = f"{shown[:_MOST_CHARACTERS]}…"
    demand = (
        f"Your reply cannot be used: {error.message}.\n"
        f"Decide again. Reply with one JSON object and nothing else:\n{REPLY_FORM}"
    )
    # Providers refuse empty messages.
    return (*messages, Message("assistant", shown or "(empty)"), Message("user", demand))
