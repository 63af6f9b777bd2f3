"""Settings of the workflow: guards and brokers."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, FilePath, Url
from llm_trader.llm.expiry import ExpiryConfig
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.moved_files import KILL_SWITCH, ORDER_JOURNAL, PAPER_LEDGER

BrokerName = Literal["paper", "binance", "bybit"]
Percent = Annotated[float, Meta(ge=0, le=100)]


class GuardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules that turn a decision into a HOLD. Whatever they need and is unknown is a HOLD too."""

    max_data_age_s: Annotated[
        float,
        Meta(ge=1, le=86_400, description="Oldest market data, in seconds, that is traded on."),
    ] = 600.0
    least_verdict: Annotated[
        Literal["none", "weak", "informative"],
        Meta(
            description="Least verdict of the evidence that is traded on; none trades without any."
        ),
    ] = "none"
    max_novelty: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="Highest novelty percentile of a state that is traded on; 100 trades all.",
        ),
    ] = 100.0
    min_reward_risk: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="Least reward for the risk: the target's distance, as far as the price "
            "can be expected to go, over the stop's.",
        ),
    ] = 0.5
    max_expected_moves: Annotated[
        float,
        Meta(
            gt=0,
            le=100,
            description="How many expected moves (standard deviations over the forecast's "
            "horizon) a target may count for as a reward.",
        ),
    ] = 3.0
    max_position_pct: Annotated[
        float,
        Meta(gt=0, le=10_000, description="Largest position of a symbol, in % of equity."),
    ] = 100.0
    max_exposure_pct: Annotated[
        float,
        Meta(gt=0, le=10_000, description="Largest sum of all positions, in % of equity."),
    ] = 200.0
    max_leverage: Annotated[
        float,
        Meta(gt=0, le=100, description="Highest leverage of the account: positions over equity."),
    ] = 2.0
    cooldown_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds without a new position of a symbol after one of it has ended.",
        ),
    ] = 0.0
    max_trades_per_day: Annotated[
        int,
        Meta(ge=0, le=100_000, description="New positions of all symbols in one UTC day."),
    ] = 50
    max_daily_loss_pct: Annotated[
        float,
        Meta(
            gt=0,
            le=100,
            description="Loss of one UTC day in % of equity, open positions included, after which "
            "no position is opened until the next day.",
        ),
    ] = 5.0
    kill_switch: Annotated[
        FilePath,
        Meta(description="While this file exists, no process opens a position."),
    ] = KILL_SWITCH
    expiry: ExpiryConfig = ExpiryConfig()


class ExecutionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a decision becomes orders. Its own stop, target and size have precedence."""

    stop_pct: Annotated[
        float, Meta(gt=0, lt=100, description="Distance of the stop from the entry, in %.")
    ] = 2.0
    target_pct: Annotated[
        float, Meta(gt=0, le=1000, description="Distance of the target from the entry, in %.")
    ] = 3.0
    size_pct: Annotated[
        float, Meta(gt=0, le=100, description="Size of a position in % of equity.")
    ] = 20.0
    longest_hold_minutes: Annotated[
        int, Meta(ge=0, le=100_000, description="Minutes after which a position ends; 0: never.")
    ] = 240
    opposite: Annotated[
        Literal["reverse", "close", "ignore"],
        Meta(description="What an opposite decision does to a position."),
    ] = "reverse"


class PaperConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account that trades on paper."""

    ledger: Annotated[FilePath, Meta(description="File of the books.")] = PAPER_LEDGER
    instruments: Annotated[
        FilePath | None,
        Meta(
            description="JSON file with step, tick and least size of each contract; without it, "
            "orders of any size are filled.",
            examples=["data/instruments.json"],
        ),
    ] = None
    deposit: Annotated[
        float, Meta(gt=0, le=1e12, description="What a new account begins with, in USDT.")
    ] = 10_000.0
    taker_fee_bps: Annotated[
        float, Meta(ge=0, le=1000, description="Fee of each side, in basis points of the notional.")
    ] = 5.5
    slippage_bps: Annotated[
        float, Meta(ge=0, le=1000, description="Slippage of each side, in basis points.")
    ] = 1.0
    leverage: Annotated[
        float, Meta(ge=1, le=125, description="Notional of a position over its margin.")
    ] = 5.0
    maintenance_margin_pct: Annotated[
        float,
        Meta(
            ge=0,
            lt=50,
            description="What a position's equity must not fall below, in % of its notional; "
            "there it is liquidated.",
        ),
    ] = 0.5
    liquidation_fee_bps: Annotated[
        float, Meta(ge=0, le=1000, description="Further fee of a liquidation, in basis points.")
    ] = 50.0
    max_fill_wait_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="An order that finds no price for so many seconds lapses, as in a hole of "
            "the data.",
        ),
    ] = 300.0


class ExchangeAccountConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account at an exchange. Without `live` and the flag --live it is the demo's."""

    live: Annotated[
        bool,
        Meta(
            description="Trade with real money; the command line must say so too. Otherwise orders "
            "go to the exchange's demo account."
        ),
    ] = False
    api_key_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds the API key.",
            examples=["EXCHANGE_API_KEY"],
        ),
    ] = None
    api_secret_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds the API secret.",
            examples=["EXCHANGE_API_SECRET"],
        ),
    ] = None
    binance_url: Annotated[
        Url | None, Meta(description="Address instead of that of Binance's account interface.")
    ] = None
    bybit_url: Annotated[
        Url | None, Meta(description="Address instead of that of Bybit's account interface.")
    ] = None
    journal: Annotated[
        FilePath,
        Meta(description="File that notes each order before it is sent, and what became of it."),
    ] = ORDER_JOURNAL
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Seconds until a request counts as failed.")
    ] = 10.0
    receive_window_s: Annotated[
        float,
        Meta(
            ge=1,
            le=60,
            description="The exchange refuses a request that arrives later than this; only then "
            "is an order without a reply known not to be placed.",
        ),
    ] = 5.0


class WorkflowConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Decisions that are executed."""

    broker: Annotated[
        BrokerName, Meta(description="Where orders go: paper, or the account at an exchange.")
    ] = "paper"
    guards: GuardConfig = GuardConfig()
    execution: ExecutionConfig = ExecutionConfig()
    paper: PaperConfig = PaperConfig()
    exchange: ExchangeAccountConfig = ExchangeAccountConfig()
    runs: RunsConfig = RunsConfig()
