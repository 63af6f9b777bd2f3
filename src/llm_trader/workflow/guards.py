"""Rules that turn a decision into a HOLD. No I/O and no clock here: all facts are arguments.

A fact that is unknown is `None`, and a rule that needs it vetoes. All rules are asked, so that a
HOLD names everything that stood against the decision, each with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from llm_trader.llm.decision import Decision
from llm_trader.llm.expiry import check_expiry
from llm_trader.llm.record.decisions import Veto
from llm_trader.timeframe import DAY_MS, Millis
from llm_trader.workflow.config import ExecutionConfig, GuardConfig
from llm_trader.workflow.instrument import exact
from llm_trader.workflow.orders import ZERO, Balance, Fill, Position, Quote

_PCT: Final = Decimal(100)
_VERDICTS: Final = ("none", "weak", "informative")
_SIDES: Final = {"LONG": 1, "SHORT": -1}

Number = float | int | str | None


class GuardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules go by; `None` is unknown.

    `as_of_ms` and `price_then` are of the state that was decided on, `data_ms` is when its newest
    candle closed. `exposures` are the notionals of open positions by symbol, without sign.
    `fills` are those of the UTC day and, for the cooldown, of the time before. `expected_move_pct`
    is the volatility expected over the forecast's horizon. `open_runs` are other runs that decide
    on this symbol just now, `unknown_orders` those that nobody knows the fate of.
    """

    symbol: str
    now_ms: Millis | None
    as_of_ms: Millis
    price_then: float | None
    data_ms: Millis | None
    quote: Quote | None
    position: Position | None
    balance: Balance | None
    exposures: Mapping[str, Decimal] | None
    fills: Sequence[Fill] | None
    verdict: str | None = None
    novelty: float | None = None
    expected_move_pct: float | None = None
    open_runs: Sequence[str] | None = ()
    unknown_orders: Sequence[str] | None = ()
    kill_reason: str | None = None


class _Case(msgspec.Struct, frozen=True):
    decision: Decision
    facts: GuardFacts
    config: GuardConfig
    execution: ExecutionConfig

    @property
    def side(self) -> int:
        return _SIDES[self.decision.action]

    @property
    def opens(self) -> bool:
        """Whether the decision would open a position, as far as is known."""
        position = self.facts.position
        return position is None or position.side != self.side


def guarded(
    decision: Decision, facts: GuardFacts, config: GuardConfig, execution: ExecutionConfig
) -> tuple[Decision, tuple[Veto, ...]]:
    """The decision, or a HOLD of the kind `guard` with the vetoes against it.

    A HOLD passes. A repeated side opens nothing, so limits of new positions do not stop it.
    """
    if decision.action == "HOLD":
        return decision, ()
    case = _Case(decision, facts, config, execution)
    vetoes = tuple(veto for rule in _RULES if (veto := rule(case)) is not None)
    if not vetoes:
        return decision, ()
    reasons = "; ".join(f"{veto.rule}: {veto.message}" for veto in vetoes)
    return Decision.hold("guard", f"{decision.action} was refused: {reasons}"), vetoes


def _kill_switch(case: _Case) -> Veto | None:
    reason = case.facts.kill_reason
    return None if reason is None else Veto("kill_switch", reason)


def _unknown_facts(case: _Case) -> Veto | None:
    facts = case.facts
    needed = {
        "the time": facts.now_ms,
        "the price": facts.quote,
        "the position": facts.position,
        "the balance": facts.balance,
        "the exposure": facts.exposures,
        "the fills of the day": facts.fills,
        "the other runs of the symbol": facts.open_runs,
        "the unsettled orders": facts.unknown_orders,
    }
    missing = [name for name, value in needed.items() if value is None]
    if facts.balance is not None and facts.balance.equity <= 0:
        return Veto("equity", "there is no equity", {"equity": str(facts.balance.equity)})
    if not missing:
        return None
    return Veto("unknown", f"{', '.join(missing)} cannot be known; ask the broker again")


def _unsettled(case: _Case) -> Veto | None:
    orders = case.facts.unknown_orders
    if not orders:
        return None
    message = f"nobody knows what became of {', '.join(orders)}; reconcile the symbol first"
    return Veto("unsettled", message, {"orders": len(orders)})


def _one_decision(case: _Case) -> Veto | None:
    facts = case.facts
    runs = list(facts.open_runs or ())
    if runs:
        message = f"another run decides on {facts.symbol} just now: {', '.join(runs)}"
        return Veto("one_decision", message, {"runs": len(runs)})
    waiting = () if facts.position is None else facts.position.waiting_orders
    if waiting:
        message = f"orders of {facts.symbol} still wait: {', '.join(waiting)}"
        return Veto("one_decision", message, {"orders": len(waiting)})
    return None


def _data_age(case: _Case) -> Veto | None:
    facts, limit_s = case.facts, case.config.max_data_age_s
    if facts.data_ms is None:
        return Veto("data_age", "nobody knows how old the market data are")
    if facts.now_ms is None:
        return None  # vetoed already
    age_s = (facts.now_ms - facts.data_ms) / 1000
    if 0 <= age_s <= limit_s:
        return None
    message = f"the market data are {age_s:.10g} s old, at most {limit_s:g} s are allowed"
    if age_s < 0:
        message = f"the market data are {-age_s:.10g} s ahead of the clock; set the clock"
    return Veto("data_age", message, {"age_s": age_s, "limit_s": limit_s})


def _expiry(case: _Case) -> Veto | None:
    facts, config = case.facts, case.config.expiry
    if facts.now_ms is None or facts.quote is None:
        return None  # vetoed already
    price_now = float(facts.quote.price)
    expiry = check_expiry(facts.as_of_ms, facts.price_then, facts.now_ms, price_now, config)
    if not expiry.is_void:
        return None
    numbers: dict[str, Number] = {
        "void_by": ", ".join(expiry.void_by),
        "age_s": expiry.age_s,
        "max_age_s": config.max_age_s,
        "price_move_pct": expiry.price_move_pct,
        "max_price_move_pct": config.max_price_move_pct,
    }
    return Veto("expiry", f"the decision is void: {expiry.reason}", numbers)


def _verdict(case: _Case) -> Veto | None:
    verdict, least = case.facts.verdict, case.config.least_verdict
    rank = _VERDICTS.index(verdict) if verdict in _VERDICTS else -1
    if least == "none" or rank >= _VERDICTS.index(least):
        return None
    message = f"the evidence's verdict is {verdict or 'unknown'}, {least} is needed"
    return Veto("verdict", message, {"verdict": verdict, "least": least})


def _novelty(case: _Case) -> Veto | None:
    novelty, limit = case.facts.novelty, case.config.max_novelty
    if limit >= 100 or (novelty is not None and novelty <= limit):
        return None
    told = "unknown" if novelty is None else f"at percentile {novelty:g}"
    message = f"the novelty of the state is {told}, at most {limit:g} is traded"
    return Veto("novelty", message, {"percentile": novelty, "limit": limit})


def _reward_risk(case: _Case) -> Veto | None:
    decision, config, execution = case.decision, case.config, case.execution
    if config.min_reward_risk <= 0 or not case.opens:
        return None
    move_pct = case.facts.expected_move_pct
    if move_pct is None or not move_pct > 0:
        return Veto("reward_risk", "nobody knows how far the price should move")
    stop_pct = execution.stop_pct if decision.stop_pct is None else -decision.stop_pct
    target_pct = execution.target_pct if decision.target_pct is None else decision.target_pct
    reachable_pct = config.max_expected_moves * move_pct
    ratio = min(target_pct, reachable_pct) / stop_pct
    if ratio >= config.min_reward_risk:
        return None
    message = (
        f"reward over risk is {ratio:.3g}, {config.min_reward_risk:g} is needed: the target is "
        f"{target_pct:g} % away, {reachable_pct:.3g} % can be expected, the stop is {stop_pct:g} % "
        "away"
    )
    numbers: dict[str, Number] = {
        "ratio": ratio,
        "least": config.min_reward_risk,
        "target_pct": target_pct,
        "stop_pct": stop_pct,
        "expected_move_pct": move_pct,
    }
    return Veto("reward_risk", message, numbers)


def _size_pct(case: _Case) -> float:
    size_pct = case.decision.size_pct
    return case.execution.size_pct if size_pct is None else size_pct


def _position_limit(case: _Case) -> Veto | None:
    size_pct, limit_pct = _size_pct(case), case.config.max_position_pct
    if not case.opens or size_pct <= limit_pct:
        return None
    message = f"the position would be {size_pct:g} % of equity, at most {limit_pct:g} % are allowed"
    return Veto("position", message, {"size_pct": size_pct, "limit_pct": limit_pct})


def _exposure_limits(case: _Case) -> Veto | None:
    facts, config = case.facts, case.config
    if facts.exposures is None or facts.balance is None or facts.balance.equity <= 0:
        return None
    if not case.opens:
        return None
    others = sum((v for s, v in facts.exposures.items() if s != facts.symbol), ZERO)
    exposure_pct = float(others / facts.balance.equity * _PCT) + _size_pct(case)
    numbers: dict[str, Number] = {"exposure_pct": exposure_pct}
    if exposure_pct > config.max_exposure_pct:
        limit = config.max_exposure_pct
        message = f"all positions would be {exposure_pct:.4g} % of equity, at most {limit:g} %"
        return Veto("exposure", message, {**numbers, "limit_pct": limit})
    if exposure_pct > config.max_leverage * 100:
        limit = config.max_leverage
        message = f"the leverage would be {exposure_pct / 100:.3g}, at most {limit:g} is allowed"
        return Veto("leverage", message, {**numbers, "limit": limit})
    return None


def _cooldown(case: _Case) -> Veto | None:
    facts, limit_s = case.facts, case.config.cooldown_s
    if facts.now_ms is None or facts.fills is None or not limit_s or not case.opens:
        return None
    ends = [f.time_ms for f in facts.fills if f.symbol == facts.symbol and not f.opens]
    since_s = (facts.now_ms - max(ends)) / 1000 if ends else None
    if since_s is None or since_s >= limit_s:
        return None
    message = f"a position of {facts.symbol} ended {since_s:.10g} s ago, {limit_s:g} s must pass"
    return Veto("cooldown", message, {"since_s": since_s, "limit_s": limit_s})


def _trades_per_day(case: _Case) -> Veto | None:
    facts, limit = case.facts, case.config.max_trades_per_day
    if facts.now_ms is None or facts.fills is None or not case.opens:
        return None
    orders = {f.client_order_id for f in _of_the_day(facts.fills, facts.now_ms) if f.opens}
    if len(orders) < limit:
        return None
    message = f"{len(orders)} positions were opened today, at most {limit} are allowed"
    return Veto("trades_per_day", message, {"trades": len(orders), "limit": limit})


def result_of_day(fills: Sequence[Fill], unrealized: Decimal, now_ms: Millis) -> Decimal | None:
    """What the UTC day has brought: its fills after costs, and all open profit.

    None where an exchange does not say what a fill has realized. Funding is left out: it is a
    fraction of the fees at usual rates.
    """
    result = unrealized
    for fill in _of_the_day(fills, now_ms):
        if fill.realized is None:
            return None
        result += fill.realized - fill.fee - fill.slippage
    return result


def _daily_loss(case: _Case) -> Veto | None:
    """Against the equity at the day's begin."""
    facts, limit_pct = case.facts, case.config.max_daily_loss_pct
    if facts.now_ms is None or facts.fills is None or facts.balance is None or not case.opens:
        return None
    result = result_of_day(facts.fills, facts.balance.unrealized, facts.now_ms)
    if result is None:
        return Veto("daily_loss", "nobody knows the profit of a position that ended today")
    begin = facts.balance.equity - result
    if begin <= 0 or -result < begin * exact(limit_pct) / _PCT:
        return None
    loss_pct = float(-result / begin * _PCT)
    message = f"today's loss is {loss_pct:.3g} % of equity, {limit_pct:g} % end the day"
    return Veto("daily_loss", message, {"loss_pct": loss_pct, "limit_pct": limit_pct})


def _of_the_day(fills: Sequence[Fill], now_ms: Millis) -> list[Fill]:
    midnight_ms = now_ms - now_ms % DAY_MS
    return [fill for fill in fills if fill.time_ms >= midnight_ms]


_RULES: Final[tuple[Callable[[_Case], Veto | None], ...]] = (
    _kill_switch,
    _unknown_facts,
    _unsettled,
    _one_decision,
    _data_age,
    _expiry,
    _verdict,
    _novelty,
    _reward_risk,
    _position_limit,
    _exposure_limits,
    _cooldown,
    _trades_per_day,
    _daily_loss,
)
