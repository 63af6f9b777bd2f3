"""The sentences about an evaluation that its page, the terminal and metrics.json share.

What the numbers mean is decided in `evaluation/verdict`; how a number reads, in `formats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from llm_trader.evaluation import results
from llm_trader.evaluation.backtest.strategies import MASKED, RAG
from llm_trader.evaluation.report import formats
from llm_trader.evaluation.report.formats import (
    count,
    grouped,
    has_bounds,
    is_known,
    listing,
    or_none,
    value_range,
)
from llm_trader.evaluation.results import VERDICT_REFERENCE, Arm, Metrics, Skill
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, Verdict
from llm_trader.evaluation.verdict import verdicts
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.intervals import Interval

TOO_LITTLE_DATA: Final = "too little data"
DISTRUST: Final = "This evaluation cannot be trusted"
# The standard error of a mean return is still about a fifth of its deviation at 30 trades.
FEW_TRADES: Final = 30


# The top: what was evaluated, the verdict, and whether it can be believed.


def subject(metrics: Metrics) -> str:
    actions: dict[results.Command, str] = {
        "evaluate": "evaluation of",
        "compare": "comparison of neighbours on",
        "ab": f"{' against '.join(verdicts.compared_arms(metrics.arms))} on",
        "calibrate": "calibration of",
        "judge": f"forecasts of {verdicts.verdict_variant(metrics)} on",
    }
    return f"{actions[metrics.command]} {listing(metrics.origin.symbols)}"


def verdict_word(metrics: Metrics) -> str:
    word = verdicts.headline(metrics).verdict
    return metrics.verdict if word == "mixed" else word


def headline(metrics: Metrics) -> str:
    """The verdict as a sentence that names what was judged."""
    word, judged, reference = verdicts.headline(metrics)
    if word == "mixed":
        return f"Mixed: better than {reference} in some cases, worse in others"
    if metrics.command == "ab":
        more = {"better": "more", "worse": "less"}.get(word, "more or less")
        claim = f"{judged} earned {more} than {reference}"
    else:
        similar = metrics.command != "compare" and judged != "random"
        neighbours = "similar past states" if similar else f"neighbours by “{judged}”"
        better = word if word in ("better", "worse") else "better or worse"
        claim = f"{neighbours} forecast {better} than {reference} does"
        if metrics.command == "judge":
            claim = f"the forecasts of {judged} are {better} than those of {reference}"
    openings = {
        "no evidence": "No evidence that",
        TOO_LITTLE_DATA: "Too little data to say whether",
    }
    return f"{openings.get(word, f'{formats.capitalised(word)}:')} {claim}"


def distrust(metrics: Metrics) -> list[str]:
    """Why nothing else in the report counts; empty where every check passed."""
    idle = "there was too little data for a result"
    failures = {
        "negative": "it found skill in data that holds none",
        "positive": "it did not find the skill that was planted there",
    }
    trust = verdicts.assess_trust(metrics)
    return [
        f"The {control.kind} control “{control.name}” failed on {control.symbol} at "
        f"{control.horizon}: {failures[control.kind] if has_bounds(control.wide) else idle} "
        f"(skill {formats.skill(control.skill.value)})."
        for control in trust.failed_controls
    ] + [
        f"The leak probe “{probe.name}” found a problem on {probe.symbol}: {probe.problem}"
        for probe in trust.leaks
    ]


def unchecked(metrics: Metrics) -> list[str]:
    """The checks that are missing before the result can be believed."""
    if metrics.command == "calibrate":
        return ["A calibration runs no controls and no leak probes; `llm-trader evaluate` does."]
    trust = verdicts.assess_trust(metrics)
    if metrics.command == "judge":
        return ["Whether forecasts from elsewhere knew the future cannot be probed."]
    lessons = {"negative": "it finds no skill in noise", "positive": "it would find real skill"}
    gaps = [
        f"No {kind} control was run, so nothing shows that {lessons[kind]}."
        for kind in trust.missing_kinds
    ]
    if idle := len(trust.idle_controls):
        gaps.append(f"{count(idle, 'control')} had too little data to fail, so they show nothing.")
    if unprobed := trust.unprobed_symbols:
        where = "" if unprobed == metrics.origin.symbols else f" on {listing(unprobed)}"
        gaps.append(f"No query was probed for knowledge of the future{where}.")
    return gaps


def readings(metrics: Metrics) -> list[str]:
    """What was found, most important first, for the top of the report."""
    variant = verdicts.verdict_variant(metrics)
    judged = verdicts.verdict_skills(metrics.skills, variant)
    forecasts = forecast_summary(judged, variant)
    if metrics.command == "ab":
        arm, _ = verdicts.compared_arms(metrics.arms)
        model = decider_readings(metrics, arm) if metrics.decider else []
        return [*paired_returns(metrics.arms, arm), *model, forecasts]
    if metrics.command == "compare":
        return [forecasts, variant_ranking(metrics.skills, variant)]
    if metrics.command == "calibrate":
        return [band_coverage(metrics.bands), forecasts]
    directions = [hits for hits in metrics.directions if hits.variant == variant]
    sentences = [
        forecasts,
        plain_base_rate(metrics.skills, judged, variant),
        random_direction(metrics.undirected, judged),
        right_signs(directions) if any(has_bounds(hits.accuracy) for hits in directions) else "",
        earnings(judged, metrics.arms, RAG),
        band_coverage(metrics.bands),
        trial_summary(metrics.trials),
    ]
    return [sentence for sentence in sentences if sentence]


class Question(NamedTuple):
    """One of the three questions of a trader, with its answer and a verdict on it."""

    title: str
    verdict: Verdict
    answer: str


def questions(metrics: Metrics) -> list[Question]:
    """How far, which way, money: the lines on top of a report. A calibration asks none of them."""
    if metrics.command == "calibrate":
        return []
    variant = verdicts.verdict_variant(metrics)
    arm = verdicts.compared_arms(metrics.arms)[0] if metrics.command == "ab" else RAG
    return [
        _how_far(verdicts.verdict_skills(metrics.skills, variant)),
        _which_way(metrics, variant),
        _money([result for result in metrics.arms if result.name == arm], arm),
    ]


def _how_far(judged: Sequence[Skill]) -> Question:
    measured = [skill for skill in judged if has_bounds(skill.skill) and not is_same(skill)]
    if not measured:
        return Question("How far", "no evidence", f"{TOO_LITTLE_DATA}.")
    better, worse = (sum(s.verdict == word for s in measured) for word in ("better", "worse"))
    return Question(
        "How far",
        _decided(better, worse),
        f"the forecasts are better than the {VERDICT_REFERENCE} in {or_none(better)} and worse in "
        f"{or_none(worse)} of {count(len(measured), 'case')}; their loss is "
        f"{_lower(formats.mean(_values(measured)))} on average.",
    )


def _lower(skill: float | None) -> str:
    if skill is None:
        return "unknown"
    return (
        f"{formats.number(abs(skill), 2, ' %', factor=100)} {'lower' if skill >= 0 else 'higher'}"
    )


def _which_way(metrics: Metrics, variant: str) -> Question:
    shares = [
        hits.accuracy
        for hits in metrics.directions
        if hits.variant == variant and has_bounds(hits.accuracy)
    ]
    if not shares:
        return Question("Which way", "no evidence", f"{TOO_LITTLE_DATA}.")
    more, less = sum(s.above(0.5) for s in shares), sum(s.below(0.5) for s in shares)
    answer = (
        f"the sign was right in {value_range((s.value for s in shares), formats.share)} of the "
        f"outcomes, clearly more often than a coin toss in {or_none(more)} of "
        f"{count(len(shares), 'case')}"
    )
    chances = [p.skill for p in metrics.probabilities if has_bounds(p.skill)]
    if chances:
        better = sum(skill.above(0) for skill in chances)
        answer += (
            f"; the probabilities of a rise and of barriers are better than the base rates in "
            f"{or_none(better)} of {len(chances)}"
        )
    # Without a correction for their number, a few of many cases lie off a coin toss by chance.
    decided = _decided(2 * more > len(shares), 2 * less > len(shares))
    return Question("Which way", decided, f"{answer}.")


def _money(arms: Sequence[Arm], name: str) -> Question:
    returns = {
        arm.symbol: arm.performance.total_return_pct
        for arm in arms
        if is_known(arm.performance.total_return_pct)
    }
    if not returns:
        return Question("Money", "no evidence", "nothing was traded here.")
    verdict: Verdict = "no evidence"
    if all(value < 0 for value in returns.values()):
        verdict = "worse"
    elif any(arm.verdict == "better" for arm in arms) and min(returns.values()) > 0:
        verdict = "better"
    each = [f"{formats.signed_pct(value)} on {symbol}" for symbol, value in returns.items()]
    return Question("Money", verdict, f"“{name}” returned {listing(each)} after costs.")


def _decided(better: int, worse: int) -> Verdict:
    """One word for several cases; where they contradict each other there is no evidence."""
    if better and not worse:
        return "better"
    return "worse" if worse and not better else "no evidence"


# Forecasts.


def forecast_summary(judged: Sequence[Skill], variant: str) -> str:
    """Where forecasts beat the volatility model, and by how much."""
    same = [skill for skill in judged if is_same(skill)]
    judged = [skill for skill in judged if skill not in same]
    if same and not judged:
        return f"Forecasts by “{variant}” are those of the volatility model alone."
    groups = grouped(judged, lambda s: s.verdict if has_bounds(s.skill) else TOO_LITTLE_DATA)
    unmeasured, undecided = groups.pop(TOO_LITTLE_DATA, []), groups.pop("no evidence", [])
    total = count(len(judged) - len(unmeasured), "case")
    claims = [
        f"{word} than the {VERDICT_REFERENCE} in {len(groups[word])} of {total}, with a loss "
        f"(CRPS) {value_range(map(abs, _values(groups[word])), formats.share)} {size}: "
        f"{_cases(groups[word])}"
        for word, size in (("better", "lower"), ("worse", "higher"))
        if word in groups
    ]
    if claims:
        summary = f"Forecasts by “{variant}” are {'; '.join(claims)}."
        if undecided:
            summary += f" There is no evidence either way for {_cases(undecided)}."
    elif undecided:
        summary = (
            f"Nothing shows that forecasts by “{variant}” are better or worse than the "
            f"{VERDICT_REFERENCE} in any of {total} "
            f"(skill {value_range(_values(undecided), formats.skill)})."
        )
    else:
        summary, unmeasured = f"There is too little data to judge forecasts by “{variant}”.", []
    if same:
        summary += f" The volatility model forecasts alone for {_cases(same)}."
    return summary + (f" There is too little data for {_cases(unmeasured)}." if unmeasured else "")


def is_same(result: Skill | results.RegimeSkill) -> bool:
    """Exactly zero is no chance: the forecasts are those of the reference."""
    return result.skill == Interval(0, 0, 0)


def _values(skills: Iterable[Skill | results.UndirectedSkill]) -> list[float]:
    return [value for result in skills if (value := result.skill.value) is not None]


def _cases(skills: Sequence[Skill]) -> str:
    """`BTCUSDT over 15m and 1h; ETHUSDT over 4h`."""
    horizons = {
        symbol: listing([result.horizon for result in group])
        for symbol, group in grouped(skills, lambda result: result.symbol).items()
    }
    symbols = grouped(horizons, horizons.__getitem__)
    return "; ".join(f"{listing(names)} over {over}" for over, names in symbols.items())


def plain_base_rate(skills: Sequence[Skill], judged: Sequence[Skill], variant: str) -> str:
    """The skill over the plain base rate, and over the volatility model, which has most of it."""
    bounded = [skill for skill in skills if has_bounds(skill.skill)]
    gains = _values(s for s in bounded if (s.reference, s.variant) == ("base rate", variant))
    average = formats.mean(gains)
    over_model = formats.mean(_values(result for result in judged if has_bounds(result.skill)))
    if average is None:
        return ""
    sentence = (
        f"The skill over the plain base rate is {value_range(gains, formats.skill)}, "
        f"{formats.skill(average)} on average"
    )
    if over_model is None:
        return f"{sentence}."
    return f"{sentence}; over the {VERDICT_REFERENCE} it is {formats.skill(over_model)} on average."


def random_direction(undirected: Sequence[results.UndirectedSkill], judged: Sequence[Skill]) -> str:
    """How much of the skill is in the size of price moves rather than in their direction."""
    skills = {(s.symbol, s.horizon): s for s in judged if has_bounds(s.skill)}
    randomised = [r for r in undirected if (r.symbol, r.horizon) in skills and has_bounds(r.skill)]
    size_skill = formats.mean(_values(randomised))
    full_skill = formats.mean(_values(skills[r.symbol, r.horizon] for r in randomised))
    if size_skill is None or full_skill is None:
        return ""
    return (
        "When the direction of outcomes is drawn at random, the average skill over the "
        f"{VERDICT_REFERENCE} is {formats.skill(size_skill)} instead of "
        f"{formats.skill(full_skill)}: what is left then is about how far prices move, not in "
        "which direction."
    )


def right_signs(directions: Sequence[results.Direction]) -> str:
    shares = [hits.accuracy for hits in directions if has_bounds(hits.accuracy)]
    if not shares:
        return "There is too little data to say how often the median forecast had the right sign."
    more = sum(share.above(0.5) for share in shares)
    less = sum(share.below(0.5) for share in shares)
    sentence = (
        "The median forecast had the right sign in "
        f"{value_range((s.value for s in shares), formats.share)} of the outcomes, clearly more "
        f"often than a coin toss in {or_none(more)} and less often in {or_none(less)} of "
        f"{count(len(shares), 'case')}."
    )
    if not more:
        sentence += " Any skill lies in how far prices move, not in which direction."
    return sentence


# Variants that take part in a comparison only to show what others add to them.
_YARDSTICKS: Final = {
    "none": "forecasts without neighbours (“none”)",
    "random": "random neighbours (“random”)",
    "prototype": "the method of the prototype (“prototype”)",
}


def variant_ranking(skills: Sequence[Skill], variant: str) -> str:
    """The kinds of neighbours by mean skill against the plain base rate, best first."""
    plain = [s for s in skills if s.reference == "base rate" and s.skill.value is not None]
    means = {
        name: formats.mean(_values(group)) or 0.0
        for name, group in grouped(plain, lambda skill: skill.variant).items()
    }
    if not means:
        return "There is too little data to compare kinds of neighbours."
    ranking = [f"“{n}” {formats.skill(means[n])}" for n in sorted(means, key=lambda n: -means[n])]
    sentence = f"Mean skill over the plain base rate, best first: {listing(ranking)}."
    comparisons = [
        f"{_distance(means[variant] - means[name])} {meaning}"
        for name, meaning in _YARDSTICKS.items()
        if name in means and name != variant and variant in means
    ]
    return sentence + (f" So “{variant}” is {listing(comparisons)}." if comparisons else "")


def _distance(difference: float) -> str:
    points = formats.number(100 * abs(difference), 2)
    if not float(points):
        return "level with"
    return f"{points} percentage points {'behind' if difference < 0 else 'ahead of'}"


def band_coverage(bands: Sequence[results.Band]) -> str:
    shares = [
        (raw, corrected)
        for band in bands
        if is_known(raw := band.before.value) and is_known(corrected := band.after.value)
    ]
    if not shares:
        return "There is too little data to say how often outcomes fell inside the 80 % band."
    closer = sum(abs(corrected - BAND_LEVEL) < abs(raw - BAND_LEVEL) for raw, corrected in shares)
    raw_share, final_share = (
        value_range(column, formats.share) for column in zip(*shares, strict=True)
    )
    return (
        f"The 80 % band held {raw_share} of the outcomes before correction and {final_share} after "
        f"it. The correction moved the share closer to 80 % in {closer} of "
        f"{count(len(shares), 'case')}."
    )


# Decisions.


def paired_returns(arms: Sequence[Arm], name: str) -> list[str]:
    """What one arm and its baseline earned on each symbol."""
    baselines = {arm.symbol: arm for arm in arms if arm.difference is None}
    return [
        f"{arm.symbol}: {_returned(arm)}; {_returned(baselines[arm.symbol])}. {_difference(arm)}"
        for arm in arms
        if arm.name == name and arm.difference is not None and arm.symbol in baselines
    ]


def _returned(arm: Arm) -> str:
    performance = arm.performance
    if not performance.trades:
        return f"{arm.name} made no trade"
    returned = formats.signed_pct(performance.total_return_pct)
    return f"{arm.name} returned {returned} in {count(performance.trades, 'trade')}"


def _difference(arm: Arm) -> str:
    if arm.verdict is None or not has_bounds(arm.difference):
        return "There is too little data for a comparison."
    chance = "Chance explains" if arm.verdict == "no evidence" else "Chance does not explain"
    return (
        f"{chance} the difference of {formats.daily_points(arm.difference.value)} percentage "
        f"points a day ({formats.bounds(arm.difference, formats.daily_points)})."
    )


def decider_readings(metrics: Metrics, arm: str) -> list[str]:
    """What a language model's decisions were worth one by one, and what they cost."""
    decider = metrics.decider
    if decider is None:
        return []
    shown = arm, f"{arm}{MASKED}"
    sentences = [_paired(paired) for paired in metrics.paired if paired.arm in shown]
    if decider.knowledge_cutoff is None:
        sentences.append(
            f"No knowledge cutoff of {decider.model} is known, so it may have read about what "
            "followed any of these states."
        )
    elif not any(p.period == "after the cutoff" and p.states for p in metrics.paired):
        sentences.append(
            f"All states lie before the knowledge cutoff of {decider.model}, "
            f"{decider.knowledge_cutoff}: it may have read about what followed them."
        )
    sentences += [_price_of_arm(arm_of_model) for arm_of_model in decider.arms]
    return sentences


def _paired(paired: results.Paired) -> str:
    states = count(paired.states, "state")
    period = "" if paired.period == "all" else f" {paired.period}"
    if not has_bounds(paired.difference):
        return f"{paired.symbol}{period}: {states} are too few to compare decisions one by one."
    difference = paired.difference.value or 0.0
    more = "less" if difference < 0 else "more"
    return (
        f"{paired.symbol}{period}: on {states}, {paired.arm} decided otherwise than "
        f"{paired.baseline} {count(paired.different, 'time')}; all costs paid, its decisions "
        f"earned {formats.number(abs(difference), 3)} percentage points {more} each "
        f"({formats.bounds(paired.difference, formats.daily_points)})."
    )


def _price_of_arm(arm: results.DecidedArm) -> str:
    errors = arm.holds.get("error", 0)
    failed = f"; {count(errors, 'decision')} failed and held" if errors else ""
    price = arm.price
    return (
        f"{arm.symbol}, {arm.arm}: {count(arm.states, 'decision')} for "
        f"{formats.usd(price.total_usd)}, {formats.usd(price.per_decision_usd)} each and "
        f"{formats.number(arm.bill_pct, 3, ' %')} of the account{failed}."
    )


# By whether forecasts have skill, and whether the arm earned more than its baseline.
_EARNINGS: Final = {
    (True, True): "Skill in forecasting turned into earnings after costs.",
    (True, False): "Skill in forecasting did not turn into earnings after costs.",
    (False, True): "Earnings without skill in forecasting are luck until shown otherwise.",
    (False, False): "Neither forecasts nor earnings show anything to trade on.",
}


def earnings(judged: Sequence[Skill], arms: Sequence[Arm], name: str) -> str:
    """What forecasts and earnings together mean for a trader, and the numbers."""
    tested_arms = [arm for arm in arms if arm.name == name]
    decided = {arm.verdict for arm in tested_arms if has_bounds(arm.difference)}
    few_trades = all(arm.performance.trades < FEW_TRADES for arm in tested_arms)
    sentences = paired_returns(arms, name)
    if decided:
        skilled = any(result.verdict == "better" for result in judged)
        conclusion = _EARNINGS[skilled, "better" in decided and "worse" not in decided]
        if few_trades and "better" not in decided:
            conclusion += " So few trades could have shown little."
        sentences = [conclusion, *sentences]
    return " ".join(sentences)


def trial_summary(trials: results.Trials) -> str:
    several = trials.so_far > 1
    tried = count(trials.so_far, "configuration")
    sentence = f"{tried} {'has' if trials.so_far == 1 else 'have'} been tried so far in this folder"
    p = trials.superior_p_value
    if not is_known(p):
        claim = f"{'the best of them' if several else 'it'} beats the {VERDICT_REFERENCE}"
        if trials.tested:
            return f"{sentence}. There are too few days to test whether {claim}."
        return f"{sentence}. Whether {claim} was not tested."
    if several:
        tested = "all" if trials.tested == trials.so_far else f"{trials.tested:,}"
        sentence += f", {tested} of them on these queries"
    explains = "hardly explains" if p <= SIGNIFICANCE_LEVEL else "can explain"
    return (
        f"{sentence}. Chance {explains} how well the best of those did beside the volatility "
        f"model, given so many tries (Hansen's test, p-value {formats.p_value(p)})."
    )
