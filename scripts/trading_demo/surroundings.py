"""Starts the processes of the demo, and knows where each of them keeps its files."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.llm.stub.server import TEST_KEY

from llm_trader.settings.tree import ENV_PREFIX
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, parse_rfc3339
from trading_demo.clock import SharedClock
from trading_demo.processes import Event, Process, environ_of

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")
# A state reads 20 days of 4h candles: some 24 days of states to compare with.
HISTORY_DAYS: Final = 45
_MARKET_START_MS: Final = parse_rfc3339("2025-01-01T00:00:00Z")
DAY_START_MS: Final[Millis] = _MARKET_START_MS + HISTORY_DAYS * DAY_MS
# The set-up takes seconds by a clock that does not hurry, so the day begins after its end. What
# the collector posts before has passed its deadline when the workflow takes snapshots.
_CLOCK_START_MS: Final = DAY_START_MS - 4 * MINUTE_MS
_DAYS: Final = HISTORY_DAYS + 3

_SCRIPTS: Final = Path(__file__).resolve().parents[1]
_ROOT: Final = _SCRIPTS.parent
_GRAPH: Final = _ROOT / "workflows" / "llm-trader"
_SERVE: Final = "from llm_trader.cli.main import main; main()"
_LONGEST_START_S: Final = 60.0


@dataclass(frozen=True)
class Surroundings:
    """`ports` are those of the intake and the RAG server; both must stay after a restart."""

    folder: Path
    clock: SharedClock
    intake_port: int
    rag_port: int

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        clock = SharedClock.starting(folder / "clock", _CLOCK_START_MS)
        with _free_port() as intake, _free_port() as rag:
            made = cls(folder, clock, intake, rag)
        made.write_graph()
        return made

    @property
    def store(self) -> Path:
        return self.folder / "market"

    @property
    def ledger(self) -> Path:
        return self.folder / "paper.sqlite"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def record(self) -> Path:
        return self.folder / "decisions"

    @property
    def graph(self) -> Path:
        return self.folder / "graph" / "main.yml"

    def write_graph(self) -> None:
        """The shipped graph; only that a query is not tried again for as long as in use.

        Two attempts with all their retries take seconds, which are an hour of the demo's day.
        """
        for path in (Path("main.yml"), Path("nodes", "rag-query.yml")):
            text = (_GRAPH / path).read_text(encoding="utf-8")
            if path.name == "rag-query.yml":
                text, count = re.subn(r"(?m)^retryOnFail: true$", "retryOnFail: false", text)
                text = re.sub(r"(?m)^(maxTries|waitBetweenTries): .*\n", "", text)
                text, limits = re.subn(r"timeout_ms: \d+", "timeout_ms: 500", text)
                if (count, limits) != (1, 1):
                    raise ValueError(f"{path} has no retries and timeout to shorten any more")
            target = self.folder / "graph" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def exchange(self, stack: ExitStack) -> Process:
        return stack.enter_context(
            self._program("exchange", "exchange", *self._market(), "--days", str(_DAYS))
        )

    def model(self, stack: ExitStack) -> Process:
        return stack.enter_context(self._program("stub model", "model"))

    def collector(self, stack: ExitStack, exchange_url: str) -> Process:
        settings = {
            "MARKET__EXCHANGE__BYBIT_URL": exchange_url,
            "MARKET__EXCHANGE__BYBIT_WS_URL": exchange_url.replace("http://", "ws://"),
            # Of simulated seconds, of which hundreds pass between two looks.
            "MARKET__EXCHANGE__SILENCE_S": "3600",
            "DELIVERY__INTAKES": f"127.0.0.1:{self.intake_port}",
            "DELIVERY__MAX_WAIT_S": "300",
            "DELIVERY__DEADLINE_S": "900",
        }
        return stack.enter_context(
            self._program("collector", "collector", *self._market(), settings=settings)
        )

    def rag_server(self) -> Process:
        command = ["-c", _SERVE, "serve", "--port", str(self.rag_port), "--min-matches", "1"]
        return Process("RAG server", command, self._environ({"SERVING__HTTP": "false"}))

    def workflow(self, model_url: str, *more: str) -> Process:
        settings = {
            "LLM__BASE_URL": model_url,
            "LLM__REQUESTS_PER_MINUTE": "10000",
            # What the stub's tokens would cost at the real model's price.
            "LLM__DAILY_BUDGET_USD": "100",
            "WORKFLOW__RUNS__POLL_MS": "20",
            "WORKFLOW__RUNS__RAG_URL": f"tcp://127.0.0.1:{self.rag_port}",
            "INTAKE__PORT": str(self.intake_port),
            "INTAKE__HTTP": "false",
            # Shorter than by default, so that the hours with the kills have their orders.
            "WORKFLOW__EXECUTION__LONGEST_HOLD_MINUTES": "120",
            "DECISIONS__LONGEST_HOLD_HOURS": "2",
        }
        arguments = ["--clock", str(self.clock.path), "--graph", str(self.graph), *more]
        return self._program("workflow", "workflow", *arguments, settings=settings)

    def _market(self) -> list[str]:
        symbols = ["--symbols", ",".join(SYMBOLS)]
        return [*symbols, "--clock", str(self.clock.path), "--start-ms", str(_MARKET_START_MS)]

    def _program(
        self, name: str, program: str, *arguments: str, settings: dict[str, str] | None = None
    ) -> Process:
        command = ["-m", "trading_demo.programs", program, *arguments]
        return Process(name, command, self._environ(settings or {}))

    def _environ(self, settings: dict[str, str]) -> dict[str, str]:
        shared = {
            "MARKET__STORE": str(self.store),
            "INDEX__PATH": str(self.folder / "index"),
            "DECISIONS__RECORD": str(self.record),
            "WORKFLOW__RUNS__FOLDER": str(self.runs),
            "WORKFLOW__PAPER__LEDGER": str(self.ledger),
            "WORKFLOW__GUARDS__KILL_SWITCH": str(self.folder / "kill-switch"),
        }
        environ = environ_of(shared | settings, ENV_PREFIX, [str(_SCRIPTS), str(_ROOT)])
        return {**environ, "ANTHROPIC_API_KEY": TEST_KEY}


def listening(process: Process) -> list[Event]:
    """All that it said until it listened."""
    return process.events(lambda event: event.get("event") == "rpc_listening", _LONGEST_START_S)


def url_of(process: Process) -> str:
    return str(process.event(lambda event: "url" in event, _LONGEST_START_S)["url"])


@contextmanager
def _free_port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield int(free.getsockname()[1])
