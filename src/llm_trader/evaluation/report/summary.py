"""Sentences of the readings at the top of a report: one of them for each question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Final

from llm_trader.evaluation.report.units import (
    between,
    bounded,
    bounds,
    counted,
    listed,
    or_none,
    points,
    share,
    signed_pct,
    skill,
)
from llm_trader.evaluation.results import VERDICT_REFERENCE, Arm, Direction, Skill, UndirectedSkill
from llm_trader.evaluation.significance import Verdict

FEW_TRADES: Final = 30

_SIZES: Final[dict[Verdict, str]] = {"better": "smaller", "worse": "larger"}
_EARNED: Final[dict[Verdict, str]] = {
    "better": "which is more than chance explains",
    "worse": "a loss that chance does not explain",
    "no evidence": "which chance explains",
}

# By whether there is skill in forecasting, and whether more was earned than by the baseline.
_EARNINGS: Final = {
    (True, True): "Skill in forecasting turned into earnings after costs.",
    (True, False): "Skill in forecasting did not turn into earnings after costs.",
    (False, True): "Earnings without skill in forecasting: luck, until shown otherwise.",
    (False, False): "Neither forecasts nor earnings show anything to trade on.",
}


def judged(skills: Sequence[Skill], variant: str) -> list[Skill]:
    return [one for one in skills if one.reference == VERDICT_REFERENCE and one.variant == variant]


def of_judged(found: Sequence[Skill], variant: str) -> str:
    sure = [one for one in found if bounded(one.skill)]
    if not sure:
        return f"There is too little data to judge forecasts by “{variant}”."
    cases, short = counted(len(sure), "case"), [one for one in found if one not in sure]
    unsure = f" There is too little data for {_cases(short)}." if short else ""
    of: dict[Verdict, list[Skill]] = {}
    for one in sure:
        of.setdefault(one.verdict, []).append(one)
    told = [
        f"{verdict} than the base rate treated alike in {len(of[verdict])} of {cases}, with a "
        f"loss (CRPS) {between([abs(value) for value in _values(of[verdict])], share)} {size}: "
        f"{_cases(of[verdict])}"
        for verdict, size in _SIZES.items()
        if verdict in of
    ]
    silent = of.get("no evidence", [])
    if not told:
        values = between(_values(silent), skill)
        return (
            f"Nothing shows that forecasts by “{variant}” are better or worse than the base rate "
            f"treated alike, in any of {cases} (skill {values}).{unsure}"
        )
    rest = f" There is no evidence either way for {_cases(silent)}." if silent else ""
    return f"Forecasts by “{variant}” are {'; '.join(told)}.{rest}{unsure}"


def _cases(skills: Sequence[Skill]) -> str:
    """`BTCUSDT over 15m and 1h; ETHUSDT over 4h`."""
    horizons: dict[str, list[str]] = {}
    for one in skills:
        horizons.setdefault(one.symbol, []).append(one.horizon)
    alike: dict[str, list[str]] = {}
    for symbol, of in horizons.items():
        alike.setdefault(listed(of), []).append(symbol)
    return "; ".join(f"{listed(symbols)} over {of}" for of, symbols in alike.items())


def of_plain(skills: Sequence[Skill], beside: Sequence[Skill], variant: str) -> list[str]:
    """How much of what is gained over the plain base rate the neighbours have no part in."""
    plain = [one for one in skills if one.reference == "base rate" and one.variant == variant]
    gained, left = (_values(one for one in of if bounded(one.skill)) for of in (plain, beside))
    if not gained:
        return []
    whole, own = sum(gained) / len(gained), sum(left) / len(left) if left else nan
    said = (
        f"Against the plain base rate the skill is {between(gained, skill)}, {skill(whole)} on "
        "average."
    )
    if whole > own > 0:
        said += (
            f" Of that, {skill(own)} is left once the base rate is rescaled to the volatility of "
            "the moment too."
        )
    elif whole > 0 >= own:
        said += (
            " Nothing of that is left once the base rate is rescaled to the volatility of the "
            "moment too."
        )
    return [said]


def _values(skills: Iterable[Skill | UndirectedSkill]) -> list[float]:
    return [value for one in skills if (value := one.skill.value) is not None]


def of_undirected(found: Sequence[UndirectedSkill], beside: Sequence[Skill]) -> list[str]:
    """How much of the skill is not in the direction of prices."""
    whole = {
        (one.symbol, one.horizon): value
        for one in beside
        if bounded(one.skill) and (value := one.skill.value) is not None
    }
    left = [one for one in found if (one.symbol, one.horizon) in whole and bounded(one.skill)]
    if not left:
        return []
    kept = sum(_values(left)) / len(left)
    skilled = sum(whole[one.symbol, one.horizon] for one in left) / len(left)
    said = (
        f"With the direction of outcomes drawn by chance {skill(kept)} of {skill(skilled)} is left "
        "on average"
    )
    if kept > 0 and 2 * kept > skilled > 0:
        return [f"{said}: most of the skill is in how far prices go, not where to."]
    return [f"{said}: that much of the skill is in how far prices go, not where to."]


def of_signs(found: Sequence[Direction]) -> list[str]:
    judged = [one.accuracy for one in found if bounded(one.accuracy)]
    if not judged:
        return []
    above = sum(one.above(0.5) for one in judged)
    values = between([one.value for one in judged], share)
    return [
        f"The median forecast had the right sign in {values} of the outcomes, clearly more often "
        f"than a coin toss in {or_none(above)} of {counted(len(judged), 'case')}."
        + ("" if above else " What skill there is, is in how far the price goes, not where to.")
    ]


def of_pairs(arms: Sequence[Arm], name: str) -> list[str]:
    """Of each symbol, what one arm and its baseline earned."""
    said = []
    for one in arms:
        base = next((of for of in arms if of.symbol == one.symbol and of.difference is None), None)
        if one.name == name and one.difference is not None and base is not None:
            said.append(_of_pair(one, base))
    return said


def _of_pair(arm: Arm, base: Arm) -> str:
    what, beside = (_returned(of) for of in (arm, base))
    apart, sure = arm.difference, arm.verdict
    if apart is None or sure is None or not bounded(apart):
        return f"{arm.symbol}: {what}; {beside}. There is too little data for a comparison."
    return (
        f"{arm.symbol}: {what}; {beside}. A day, that is {points(apart.value)} "
        f"({bounds(apart, points)}), {_EARNED[sure]}."
    )


def _returned(arm: Arm) -> str:
    of = arm.performance
    if not of.trades:
        return f"{arm.name} made no trade"
    return f"{arm.name} returned {signed_pct(of.total_return_pct)} in {counted(of.trades, 'trade')}"


def of_earnings(forecasts: Sequence[Skill], arms: Sequence[Arm], name: str) -> str:
    """What forecasts and earnings together mean for who would trade on them, and the numbers."""
    own = [one for one in arms if one.name == name]
    found = [one for one in own if one.difference is not None and bounded(one.difference)]
    skilled = any(one.verdict == "better" for one in forecasts)
    earned, lost = (any(one.verdict == of for one in found) for of in ("better", "worse"))
    said = _EARNINGS[skilled, earned and not lost] if found else ""
    if found and not earned and max(one.performance.trades for one in own) < FEW_TRADES:
        said += " With so few trades, little could have been shown."
    return " ".join([said, *of_pairs(arms, name)]).strip()
