"""Ways in which the WebSocket streams fail, switchable while the exchange runs.

Whether an update is disturbed follows from the seed and the update alone, and planned faults happen
at times of the exchange's clock: equal seeds give equal faults, however fast the machine is.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from llm_trader.timeframe import Millis
from tests.exchange.streams import StreamKey, Update

# `late` comes after the update that follows it; `stale` is an unfinished state of a candle, sent
# again after its end.
UpdateFault = Literal["duplicate", "late", "stale", "lost"]
# What happens to all connections that are open at the time. `half_open` sends nothing any more and
# answers no ping; `stalled` sends no candle any more, and answers.
ConnectionFault = Literal[
    "disconnect", "half_open", "stalled", "error_frame", "garbled", "refused_403", "refused_429"
]
CONNECTION_FAULTS: tuple[ConnectionFault, ...] = get_args(ConnectionFault)

Earlier = Callable[[Update], Update | None]


class Refusal(NamedTuple):
    """The status of a refused upgrade."""

    status: int
    retry_after_s: int = 1


@dataclass
class StreamFaults:
    """`shares` says which part of the updates is disturbed in each way."""

    shares: dict[UpdateFault, float] = field(default_factory=dict)
    seed: int = 1
    happened: int = 0
    _now: deque[ConnectionFault] = field(default_factory=deque)
    _plan: list[tuple[Millis, ConnectionFault]] = field(default_factory=list)
    _refusals: deque[Refusal] = field(default_factory=deque)
    _held: dict[StreamKey, Update] = field(default_factory=dict)

    def inject(self, kind: ConnectionFault) -> None:
        """Strikes within a hundredth of a second; may be called from any thread."""
        self._now.append(kind)

    def refuse(self, status: int, *, times: int = 1, retry_after_s: int = 1) -> None:
        """The next connections are refused, with 403 or 429."""
        self._refusals.extend([Refusal(status, retry_after_s)] * times)

    def plan(
        self,
        count: int,
        *,
        start_ms: Millis,
        end_ms: Millis,
        seed: int,
        kinds: Sequence[ConnectionFault] = CONNECTION_FAULTS,
    ) -> list[tuple[Millis, ConnectionFault]]:
        """Strikes `count` times at random between two times of the exchange's clock."""
        rng = random.Random(seed)
        times = sorted(rng.randrange(start_ms, end_ms) for _ in range(count))
        self._plan = [(time_ms, rng.choice(kinds)) for time_ms in times]
        return list(self._plan)

    def due(self, now_ms: Millis) -> list[ConnectionFault]:
        """The faults that strike at this moment, each once."""
        faults = [self._now.popleft() for _ in range(len(self._now))]
        while self._plan and self._plan[0][0] <= now_ms:
            faults.append(self._plan.pop(0)[1])
        for fault in faults:
            if fault.startswith("refused_"):
                self.refuse(int(fault.removeprefix("refused_")))
        self.happened += len(faults)
        return faults

    def next_refusal(self) -> Refusal | None:
        return self._refusals.popleft() if self._refusals else None

    def disturbed(self, updates: Iterable[Update], earlier: Earlier) -> list[Update]:
        """What is sent in place of the updates of one stream."""
        sent: list[Update] = []
        for update in updates:
            if self._strikes("lost", update):
                continue
            held = self._held.pop(update.key, None)
            if held is None and self._strikes("late", update):
                self._held[update.key] = update
                continue
            sent += [update] * (2 if self._strikes("duplicate", update) else 1)
            sent += [held] if held is not None else []
            if update.is_final and self._strikes("stale", update):
                sent += [old for old in [earlier(update)] if old is not None]
        return sent

    def _strikes(self, kind: UpdateFault, update: Update) -> bool:
        share = self.shares.get(kind, 0.0)
        if not share:
            return False
        text = f"{self.seed} {kind} {update.key} {update.open_ms} {update.time_ms}"
        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        strikes = int.from_bytes(digest, "big") / 2**32 < share
        self.happened += strikes
        return strikes
