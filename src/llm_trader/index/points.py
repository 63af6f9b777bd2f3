"""Points on arrays: a state, what followed it, and its vectors by name."""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Kinds, Times, Vectors
from llm_trader.errors import InvalidInputError
from llm_trader.snapshot.model import OPTIONAL_FIELDS, SCALARS
from llm_trader.snapshot.outcome import EXTREMES, LABELS, resolved_at
from llm_trader.snapshot.table import lacking
from llm_trader.timeframe import Millis

STATE: Final = "state"
TEXT: Final = "text"

COLUMNS: Final = (*SCALARS, *LABELS)
COLUMN_ROW: Final = {name: row for row, name in enumerate(COLUMNS)}
_OPTIONAL_ROWS: Final = np.array([name in {*OPTIONAL_FIELDS, *EXTREMES} for name in COLUMNS])

# Another namespace would change the id of every stored point.
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:llm-trader-rag:point")


# Queries about near times show the same points again and again.
@lru_cache(maxsize=8192)
def point_id(symbol: str, timestamp_ms: Millis, feature_version: str) -> str:
    """The same point has the same id wherever and however often it is ingested (UUIDv5)."""
    return str(uuid.uuid5(_NAMESPACE, f"{symbol}:{timestamp_ms}:{feature_version}"))


@dataclass(frozen=True, slots=True, eq=False)
class PointTable:
    """n points of one symbol, increasing in time.

    `timestamp_ms` (n,); `values` (columns, n), rows as in `COLUMNS`; `vectors` by name, each
    (n, dimension), norm 1; `run` (n,), the number of the ingestion run that wrote the point. Open
    interest and funding may be NaN, and a state vector is 0 where it would tell of them.

    Tables with equal version tokens are parts of the same stored points of the symbol. A backend
    gives its tables a new token whenever the points may have changed, also by a rebuild, a
    migration or a restore. By default a table equals no other one.
    """

    symbol: str
    timestamp_ms: Times
    values: Floats
    vectors: Mapping[str, Vectors]
    run: npt.NDArray[np.uint32]
    version_token: Hashable = field(default_factory=object)

    @classmethod
    def checked(
        cls,
        symbol: str,
        timestamp_ms: Times,
        values: Floats,
        vectors: Mapping[str, Vectors],
        run: int,
    ) -> PointTable:
        """Points to be stored. Raises `InvalidInputError` unless they are increasing and have all
        that is not `OPTIONAL`.
        """
        n = len(timestamp_ms)
        if values.shape != (len(COLUMNS), n) or any(len(v) != n for v in vectors.values()):
            raise InvalidInputError(f"points of {symbol}: arrays differ in length")
        if (np.diff(timestamp_ms) <= 0).any():
            raise InvalidInputError(f"points of {symbol}: timestamps must increase")
        known = np.isfinite(values)
        known[_OPTIONAL_ROWS] |= np.isnan(values[_OPTIONAL_ROWS])
        if not (known.all() and all(np.isfinite(named).all() for named in vectors.values())):
            raise InvalidInputError(f"points of {symbol}: an incomplete point cannot be stored")
        # Rounding to float32 moves a norm by 1e-6 at most; a vector never normalised is far off.
        for named in vectors.values():
            if (np.abs(np.square(named).sum(axis=1) - 1) > 1e-4).any():
                raise InvalidInputError(f"points of {symbol}: vectors must have norm 1")
        return cls(symbol, timestamp_ms, values, vectors, np.full(n, run, np.uint32))

    def __len__(self) -> int:
        return len(self.timestamp_ms)

    @property
    def resolved_at_ms(self) -> Times:
        return resolved_at(self.timestamp_ms)

    def lacking(self) -> Kinds:
        """Which of `OPTIONAL` each point lacks, a bit for each, shape (n,); 0 where nothing."""
        return lacking(self.values)

    def column(self, name: str) -> Floats:
        """One payload field, shape (n,), a view."""
        values: Floats = self.values[COLUMN_ROW[name]]
        return values

    def take(self, rows: Any) -> PointTable:
        """Some points, by index, mask or slice; a slice gives views."""
        values = self.values[:, rows]
        if not isinstance(rows, slice):
            # In the same order of memory as others: sums over it must not differ in the last bit.
            values = np.ascontiguousarray(values)
        return PointTable(
            self.symbol,
            self.timestamp_ms[rows],
            values,
            {name: vectors[rows] for name, vectors in self.vectors.items()},
            self.run[rows],
            self.version_token,
        )


def joined(tables: Iterable[PointTable]) -> PointTable:
    """One table in the order of time; of points of the same time, the last one is kept.

    There is at least one table; their symbols and the names of their vectors are equal.
    """
    tables = list(tables)
    table = PointTable(
        tables[0].symbol,
        np.concatenate([table.timestamp_ms for table in tables]),
        np.concatenate([table.values for table in tables], axis=1),
        {name: np.concatenate([t.vectors[name] for t in tables]) for name in tables[0].vectors},
        np.concatenate([table.run for table in tables]),
    )
    if (np.diff(table.timestamp_ms) > 0).all():
        return table
    backwards = table.timestamp_ms[::-1]
    _, last = np.unique(backwards, return_index=True)
    return table.take(len(backwards) - 1 - last)
