"""A volatility model is data: hour-of-day factors, and one linear equation for each horizon.

The constants of the built-in model were fitted once, on BTC 2023 (Binance USD-M, quarter-hours),
and are applied unchanged to every symbol and year: what is built in cannot look into a future
that came after it. On BTC 2023 itself they are in sample.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.storage.files import read_whole, write_atomically
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, MINUTE_MS, Millis

SCHEMA_VERSION: Final = 1
HOURS_PER_DAY: Final = 24
# Past windows of realised variance: those of Corsi's HAR with two shorter ones.
WINDOWS: Final[dict[str, Millis]] = {
    "15m": 15 * MINUTE_MS,
    "1h": HOUR_MS,
    "4h": 4 * HOUR_MS,
    "24h": DAY_MS,
    "7d": 7 * DAY_MS,
}
LONGEST_WINDOW_MS: Final = max(WINDOWS.values())
# A constant, one for each window, and the weekend shares of the coming horizon and the last 24h.
TERMS: Final = 1 + len(WINDOWS) + 2


class VolatilityModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """log v = b0 + Σ b_w log RV_w + c1 · weekend share ahead + c2 · weekend share of the last 24h.

    v is the expected variance of a 5-minute return in the coming horizon, RV_w the mean squared
    5-minute return over the last w, both divided by the factors of their hours. `coefficients`
    are b0, the b_w in the order of `WINDOWS`, c1 and c2, by horizon.

    `known_by_ms` is the time by which all that the model was fitted to was known; None for the
    built-in model, which is older than any use of it. Raises `InvalidInputError` for another
    number of factors, horizons or coefficients, and for factors that are not above 0.
    """

    hour_factors: tuple[float, ...]
    coefficients: dict[str, tuple[float, ...]]
    known_by_ms: Millis | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if len(self.hour_factors) != HOURS_PER_DAY or not min(self.hour_factors) > 0:
            raise InvalidInputError("a volatility model needs 24 hour factors above 0")
        if list(self.coefficients) != list(HORIZONS):
            raise InvalidInputError(
                f"a volatility model has an equation for each of {', '.join(HORIZONS)}, in this "
                "order"
            )
        for horizon, terms in self.coefficients.items():
            if len(terms) != TERMS:
                raise InvalidInputError(
                    f"the equation of {horizon} has {len(terms)} coefficients, not {TERMS}"
                )

    @property
    def id(self) -> str:
        """Such as `har-1f4c20`: the first hex digits of the SHA-256 of the constants."""
        constants = msgspec.json.encode([self.hour_factors, self.coefficients])
        return f"har-{hashlib.sha256(constants).hexdigest()[:6]}"

    def known_at(self, as_of_ms: Times) -> Mask:
        """Whether all that the model was fitted to was known at each time, shape (n,)."""
        return np.asarray(as_of_ms >= (self.known_by_ms or 0))


BUILT_IN: Final = VolatilityModel(
    hour_factors=(
        *(1.19, 1.035, 0.792, 0.563, 0.463, 0.509, 0.577, 0.574),
        *(0.683, 0.66, 0.612, 0.673, 1.016, 1.317, 1.847, 1.821),
        *(1.584, 1.442, 1.295, 1.275, 1.178, 1.176, 0.92, 0.797),
    ),
    coefficients={
        "15m": (-1.354, 0.141, 0.298, 0.198, 0.199, 0.103, -0.319, 0.162),
        "1h": (-1.47, 0.087, 0.24, 0.193, 0.244, 0.143, -0.434, 0.252),
        "4h": (-2.097, 0.051, 0.142, 0.159, 0.313, 0.187, -0.657, 0.424),
        "24h": (-3.939, 0.023, 0.059, 0.091, 0.3, 0.228, -0.935, 0.559),
    },
)


def write_model(model: VolatilityModel, path: Path) -> None:
    """Raises `ConfigurationError` where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(model)) + b"\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None


def read_model(path: Path) -> VolatilityModel:
    """Raises `ConfigurationError` unless the file holds a model of this schema version."""
    try:
        model = msgspec.json.decode(read_whole(path), type=VolatilityModel)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the volatility model {path}: {error.strerror}; fit one with: "
            "llm-trader volatility fit"
        ) from None
    except (msgspec.MsgspecError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{path} is no volatility model ({error}); fit one with: llm-trader volatility fit"
        ) from None
    if model.schema_version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} has schema version {model.schema_version}, this program reads "
            f"{SCHEMA_VERSION}; fit it again with: llm-trader volatility fit"
        )
    return model
