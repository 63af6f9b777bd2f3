"""The one rule for whether an evaluation can be believed, and what it left unchecked."""

from __future__ import annotations

from typing import Literal, NamedTuple

from llm_trader.evaluation.results import Control, Metrics, Probe

Kind = Literal["negative", "positive"]


class Trust(NamedTuple):
    """What speaks against an evaluation. Idle controls and probes had too little data to fail."""

    failed_controls: list[Control]
    leaks: list[Probe]
    idle_controls: list[Control]
    idle_probes: list[Probe]
    missing_kinds: list[Kind]
    unprobed_symbols: list[str]

    @property
    def lost(self) -> bool:
        """Whether nothing in the evaluation counts, as a control failed or a probe found a leak."""
        return bool(self.failed_controls or self.leaks)


def assess_trust(metrics: Metrics) -> Trust:
    controls, probes = metrics.controls, metrics.probes
    kinds = {control.kind for control in controls}
    probed = {probe.symbol for probe in probes if probe.checked}
    expected_kinds: tuple[Kind, Kind] = ("negative", "positive")
    return Trust(
        failed_controls=[control for control in controls if not control.passed],
        leaks=[probe for probe in probes if probe.problem is not None],
        # Without an interval a negative control cannot fail.
        idle_controls=[
            control for control in controls if control.passed and control.wide.low is None
        ],
        idle_probes=[probe for probe in probes if not probe.checked],
        missing_kinds=[kind for kind in expected_kinds if kind not in kinds],
        unprobed_symbols=[symbol for symbol in metrics.origin.symbols if symbol not in probed],
    )
