"""Every decision with all that it was made of."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Action, Decision, HoldReason
from llm_trader.llm.expiry import Expiry
from llm_trader.llm.prompt.render import Arm
from llm_trader.llm.record.call_rows import RecordedCall, read_call
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.storage.sqlite_file import SqliteFile
from llm_trader.timeframe import Millis

_COLUMNS: Final = (
    *("key", "created_at_ms", "origin", "symbol", "as_of_ms", "decider", "provider", "model"),
    *("arm", "action", "hold_reason", "document"),
)


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of a decision took together.

    `paid_usd` is what this decision added: 0 where all replies were on record. Where nobody knows
    the end of a call, its worst case counts.
    """

    cost_usd: Annotated[float, Meta(description="Price of its calls, US dollars.")] = 0.0
    paid_usd: Annotated[
        float, Meta(description="What it added to the bill; 0 for replies on record.")
    ] = 0.0
    input_tokens: Annotated[int, Meta(description="Tokens that were sent.")] = 0
    output_tokens: Annotated[int, Meta(description="Tokens that came back.")] = 0
    cached_input_tokens: Annotated[
        int, Meta(description="Of the sent ones, those that the provider had cached.")
    ] = 0
    latency_ms: Annotated[float, Meta(description="Time of its calls, milliseconds.")] = 0.0


class Veto(msgspec.Struct, frozen=True):
    rule: Annotated[str, Meta(description="Stable name of the rule, such as `daily_loss`.")]
    message: Annotated[str, Meta(description="Why it refused, in words.")]
    numbers: Annotated[
        dict[str, float | int | str | None], Meta(description="What it compared, by name.")
    ] = {}


class RecordedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and what it takes to make it again.

    `arm` was asked for, `arm_used` is `baseline` too where the retrieval failed and the settings
    allow that; `has_evidence` says whether the prompt had any. `settings` are those that decide
    what is asked. `id` is 0 until it is recorded. `vetoes` are those of the guards that kept
    a workflow from executing the decision; it stays as it was made.
    """

    id: int = 0
    key: str | None = None
    created_at_ms: Millis
    origin: str
    labels: dict[str, str] = {}
    symbol: str
    as_of_ms: Millis
    arm: Arm
    arm_used: Arm
    has_evidence: bool = False
    decider: str
    provider: str | None
    model: str | None
    decision: Decision
    snapshot: MarketSnapshot
    intraday: str
    answer: Answer | None
    match_ids: list[str]
    retrieval_error: str | None = None
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}
    settings_digest: str
    calls: list[int] = []
    costs: Costs = Costs()
    expiry: Expiry | None = None
    vetoes: list[Veto] = []


class DecisionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a decision that lists and statistics need, read several times faster."""

    id: Annotated[int, Meta(description="Number of the decision on record.")] = 0
    created_at_ms: Annotated[Millis, Meta(description="When it was made, UTC milliseconds.")]
    origin: Annotated[str, Meta(description="What asked for it, such as a command.")]
    labels: Annotated[dict[str, str], Meta(description="What whoever asked noted with it.")] = {}
    symbol: Annotated[str, Meta(description="The symbol.")]
    as_of_ms: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    arm: Annotated[Arm, Meta(description="The prompt that was asked for: `rag` or `baseline`.")]
    arm_used: Annotated[Arm, Meta(description="The prompt that was used.")]
    decider: Annotated[str, Meta(description="Who decided: a model or rules.")]
    provider: Annotated[str | None, Meta(description="Provider of the model; null for rules.")]
    model: Annotated[str | None, Meta(description="The model; null for rules.")]
    decision: Annotated[Decision, Meta(description="What was decided, and why.")]
    intraday: Annotated[str, Meta(description="Candles of the state, such as 3m.")]
    costs: Annotated[Costs, Meta(description="What its calls took.")] = Costs()
    vetoes: Annotated[
        list[Veto], Meta(description="Why guards kept a workflow from executing it.")
    ] = []


class DecisionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions; None is any. `hold_reason` selects among HOLDs."""

    symbol: str | None = None
    model: str | None = None
    arm: Arm | None = None
    action: Action | None = None
    hold_reason: HoldReason | None = None
    origin: str | None = None
    start_ms: Millis | None = None


class ExportedDecision(msgspec.Struct, frozen=True):
    """A line of an export."""

    decision: RecordedDecision
    calls: list[RecordedCall]


D = TypeVar("D", RecordedDecision, DecisionSummary)


class DecisionLog:
    """The decisions of a record. Every method commits before it returns; threads may share it."""

    def __init__(self, database: SqliteFile) -> None:
        self._database = database

    def add(self, decision: RecordedDecision) -> RecordedDecision:
        """The decision with its id. One of the same key takes the place, and the id, of the former
        one.
        """
        return self.add_all([decision])[0]

    def add_all(self, decisions: Sequence[RecordedDecision]) -> list[RecordedDecision]:
        """In one transaction: all of them are on disk, or none."""
        columns = [_columns_of(decision) for decision in decisions]
        with self._database.write() as connection:
            return [
                msgspec.structs.replace(decision, id=_put(connection, decision, values))
                for decision, values in zip(decisions, columns, strict=True)
            ]

    def get(self, number: int) -> RecordedDecision:
        """Raises `InvalidInputError` for an id that is not on record."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT id, document FROM decisions WHERE id = ?", (number,)
            ).fetchone()
        if row is None:
            raise InvalidInputError(
                f"there is no decision {number} in {self._database.path}; list them with: "
                "llm-trader decisions list"
            )
        return _read(row, RecordedDecision)

    def find_key(self, key: str) -> RecordedDecision | None:
        with self._database.read() as connection:
            number = _id_of_key(connection, key)
        return None if number is None else self.get(number)

    def summaries(self, chosen: DecisionFilter, limit: int | None = None) -> list[DecisionSummary]:
        """Newest first."""
        condition, values = _condition(chosen)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT id, document FROM decisions WHERE {condition} ORDER BY id DESC LIMIT ?",
                [*values, -1 if limit is None else limit],
            ).fetchall()
        return [_read(row, DecisionSummary) for row in rows]

    def count(self, chosen: DecisionFilter) -> int:
        condition, values = _condition(chosen)
        with self._database.read() as connection:
            statement = f"SELECT COUNT(*) FROM decisions WHERE {condition}"
            return int(connection.execute(statement, values).fetchone()[0])

    def export(self, chosen: DecisionFilter) -> Iterator[ExportedDecision]:
        """Oldest first, each with its calls; read in parts, so that writers need not wait."""
        condition, values = _condition(chosen)
        last = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    f"SELECT id, document FROM decisions WHERE {condition} AND id > ? "
                    f"ORDER BY id LIMIT {_PART}",
                    [*values, last],
                ).fetchall()
                decisions = [_read(row, RecordedDecision) for row in rows]
                calls = [[read_call(connection, c) for c in one.calls] for one in decisions]
            yield from map(ExportedDecision, decisions, calls)
            if len(rows) < _PART:
                return
            last = rows[-1]["id"]

    def set_expiry(self, number: int, expiry: Expiry) -> RecordedDecision:
        """Add whether a decision was still good when it was to be executed."""
        return self._replace(msgspec.structs.replace(self.get(number), expiry=expiry))

    def set_vetoes(self, key: str, vetoes: Sequence[Veto]) -> None:
        """Note what the guards said of the decision of that key, if it is on record."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT document FROM decisions WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return
        noted = msgspec.json.decode(zlib.decompress(row["document"]), type=_Vetoes)
        if noted.vetoes != list(vetoes) and (decision := self.find_key(key)) is not None:
            self._replace(msgspec.structs.replace(decision, vetoes=list(vetoes)))

    def _replace(self, changed: RecordedDecision) -> RecordedDecision:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE decisions SET document = ? WHERE id = ?", (_document(changed), changed.id)
            )
        return changed


_PART: Final = 200


class _Vetoes(msgspec.Struct):
    vetoes: list[Veto] = []


def _put(
    connection: sqlite3.Connection, decision: RecordedDecision, columns: dict[str, Any]
) -> int:
    """Its id."""
    number = _id_of_key(connection, decision.key)
    if number is None:
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        statement = f"INSERT INTO decisions ({names}) VALUES ({places})"
        number = int(connection.execute(statement, [*columns.values()]).lastrowid or 0)
    else:
        changes = ", ".join(f"{name} = ?" for name in columns)
        statement = f"UPDATE decisions SET {changes} WHERE id = ?"
        connection.execute(statement, [*columns.values(), number])
        connection.execute("DELETE FROM decision_calls WHERE decision_id = ?", (number,))
    connection.executemany(
        "INSERT INTO decision_calls VALUES (?, ?, ?)",
        [(number, position, call) for position, call in enumerate(decision.calls)],
    )
    return number


def _columns_of(decision: RecordedDecision) -> dict[str, Any]:
    values = {name: getattr(decision, name, None) for name in _COLUMNS}
    values["action"] = decision.decision.action
    values["hold_reason"] = decision.decision.hold_reason
    values["document"] = _document(decision)
    return values


def _document(decision: RecordedDecision) -> bytes:
    return zlib.compress(msgspec.json.encode(msgspec.structs.replace(decision, id=0)))


def _read(row: sqlite3.Row, kind: type[D]) -> D:
    decision = msgspec.json.decode(zlib.decompress(row["document"]), type=kind)
    return msgspec.structs.replace(decision, id=row["id"])


def _id_of_key(connection: sqlite3.Connection, key: str | None) -> int | None:
    row = connection.execute("SELECT id FROM decisions WHERE key = ?", (key,)).fetchone()
    return None if row is None else int(row["id"])


def _condition(chosen: DecisionFilter) -> tuple[str, list[Any]]:
    wanted = msgspec.structs.asdict(chosen)
    start_ms = wanted.pop("start_ms")
    given = {name: value for name, value in wanted.items() if value is not None}
    parts, values = [f"{name} = ?" for name in given], list(given.values())
    if start_ms is not None:
        parts.append("created_at_ms >= ?")
        values.append(start_ms)
    return " AND ".join(parts) or "TRUE", values
