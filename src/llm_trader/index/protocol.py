"""What every index backend does; one contract suite tests them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from llm_trader.arrays import Cosines, Times, Vectors
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import Window
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.market.series_changes import DataMark
from llm_trader.timeframe import Millis, Timeframe


@dataclass(frozen=True, slots=True)
class FieldRange:
    """Keeps points with `low <= field <= high`; strictly inside a bound that is `exclusive`.

    A point whose field is unknown does not pass.
    """

    field: str
    low: float = -np.inf
    high: float = np.inf
    exclusive: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """Asks for the `limit` points nearest to `vector`, among those in the window and all ranges.

    `name` says which of the points' vectors it is compared with. `scales` are the factors of their
    cosines by what points lack (`PointTable.lacking`); points whose factor is NaN do not count as
    eligible. Without `scales` cosines stay as they are.
    """

    symbol: str
    window: Window
    vector: Vectors
    limit: int
    ranges: tuple[FieldRange, ...] = ()
    name: str = STATE
    scales: Cosines | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The nearest points, most similar first; equally similar ones in order of time.

    `points` are all of the window; `rows` (hits,) point into them; `cosine` is (hits,), scaled as
    the query says. `eligible` counts the points that pass window and ranges. `best_cosine` is the
    greatest of the whole window, whatever the ranges; NaN for an empty one.
    """

    points: PointTable
    rows: npt.NDArray[np.intp]
    cosine: npt.NDArray[np.float32]
    eligible: int
    best_cosine: float


REBUILD: Final = "llm-trader index rebuild"


class IngestionRun(msgspec.Struct, frozen=True):
    """An ingestion that wrote points; every point carries its run's number."""

    run: Annotated[int, Meta(description="Number of the ingestion.")]
    build_id: Annotated[str, Meta(description="Version of the program.")]
    exchange: Annotated[str | None, Meta(description="Exchange of the data.")]
    started_at: Annotated[str, Meta(description="Start, RFC 3339.")]


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """The properties that make points comparable; collections that differ in one never mix.

    `volatility_model` is the id of the model of their expected volatilities, `max_hole_candles` the
    longest hole that indicators go on across; both are null in indexes of older versions, which are
    refused. `dimension` is that of the state vectors. The text's are null where there are no such
    vectors; `text_model` is the model's name, the digest of its files, how it is used, and the
    wording.
    """

    schema_version: Annotated[int, Meta(description="Version of the stored form.")]
    exchange: Annotated[str | None, Meta(description="Exchange of the data; null if unknown.")]
    feature_version: Annotated[
        str, Meta(description="Version of the features, with their candles.")
    ]
    intraday: Annotated[str, Meta(description="Length of the candles of its states.")]
    state_space_id: Annotated[str, Meta(description="Id of the space of the state vectors.")]
    dimension: Annotated[int, Meta(description="Length of the state vectors.")]
    volatility_model: Annotated[
        str | None, Meta(description="Id of the model of the expected volatilities.")
    ] = None
    max_hole_candles: Annotated[
        int | None, Meta(description="The longest hole that its indicators go on across, candles.")
    ] = None
    text_model: Annotated[
        str | None,
        Meta(description="Name and version of the text model; null without text vectors."),
    ] = None
    text_space_id: Annotated[
        str | None, Meta(description="Id of the space of the text vectors; null without them.")
    ] = None
    text_dimension: Annotated[
        int | None, Meta(description="Length of the text vectors; null without them.")
    ] = None

    @property
    def dimensions(self) -> dict[str, int]:
        """The dimensions of the vectors that every point has, by their names."""
        text = {} if self.text_dimension is None else {TEXT: self.text_dimension}
        return {STATE: self.dimension, **text}

    def state_space(self) -> StateSpace:
        """The state space of this version for the collection's candles."""
        return StateSpace(Timeframe.parse(self.intraday))

    def scales(self, name: str, kind: int) -> Cosines | None:
        """What a search by the vector of a stored state needs that lacks as much as `kind` says."""
        return self.state_space().overlap_of_kind(kind).scale if name == STATE else None

    def differences(self, expected: Collection) -> list[str]:
        """In words, the fields that differ from the expected ones."""
        return [
            f"{name} is {getattr(self, name)}, not {getattr(expected, name)}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(expected, name)
        ]

    def check_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Raises `InvalidInputError` unless these are the vectors of points to be stored."""
        if {name: v.shape[1] for name, v in vectors.items()} != self.dimensions:
            raise InvalidInputError(
                f"these points must have the index's vectors, of dimensions {self.dimensions}"
            )

    def check_searchable(self, name: str) -> None:
        """Raises `InvalidInputError` where no vectors of that name are stored."""
        if name not in self.dimensions:
            raise InvalidInputError(
                f"this index holds no {name} vectors; ingest with --text into a new index, or "
                "search by the state vector"
            )


class SymbolPoints(msgspec.Struct, frozen=True):
    symbol: Annotated[str, Meta(description="The symbol.")]
    points: Annotated[int, Meta(description="Number of its states.")]
    first_timestamp_ms: Annotated[Millis, Meta(description="Its oldest state, UTC milliseconds.")]
    last_timestamp_ms: Annotated[Millis, Meta(description="Its newest state, UTC milliseconds.")]
    without_open_interest: Annotated[
        int, Meta(description="Number of its states compared without open interest.")
    ] = 0
    without_funding: Annotated[
        int, Meta(description="Number of its states compared without funding.")
    ] = 0


class IndexInfo(msgspec.Struct, frozen=True, kw_only=True):
    backend: Annotated[str, Meta(description="`embedded` or `qdrant`.")]
    location: Annotated[str, Meta(description="Folder or address.")]
    collection: Annotated[Collection, Meta(description="What makes its states comparable.")]
    symbols: Annotated[list[SymbolPoints], Meta(description="What it holds of each symbol.")]
    runs: Annotated[list[IngestionRun], Meta(description="The ingestions that wrote it.")]
    size_bytes: Annotated[
        int | None, Meta(description="Size of its file, bytes; null where the backend has none.")
    ] = None


@runtime_checkable
class CountsCacheUse(Protocol):
    """A backend that keeps something between calls."""

    def cache_use(self) -> dict[str, tuple[int, int]]:
        """Hits and misses by the name of the cache, since the start."""
        ...


class VectorIndex(Protocol):
    """Points with vectors, by symbol. Errors are `VectorIndexError` and `SymbolNotFoundError`.

    Tables that are returned may be shared: their arrays are not to be written to. They hold the
    vectors that were asked for by name, and may hold more. Their version tokens change whenever
    anything of the symbol that a reader could see has changed.
    """

    @property
    def collection(self) -> Collection: ...

    @property
    def location(self) -> str:
        """A folder or an address, for messages."""
        ...

    async def search(self, query: SearchQuery) -> Hits:
        """The nearest points; raises `SymbolNotFoundError` for a symbol without any."""
        ...

    async def search_many(self, queries: Sequence[SearchQuery]) -> list[Hits]:
        """What `search` finds for each of some queries of one symbol, by vectors of one name."""
        ...

    async def scan(self, symbol: str, window: Window, vectors: Iterable[str] = ()) -> PointTable:
        """All points of a window, in time order."""
        ...

    async def fetch(
        self, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        """The points of a symbol at these times, in time order; not every time has a point."""
        ...

    async def timestamps(self, symbol: str) -> Times:
        """The timestamps of all points of a symbol, increasing; empty if it has none."""
        ...

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        """Register an ingestion run; returns the number for the points that it writes."""
        ...

    async def upsert(self, points: PointTable) -> int:
        """Write points, all or none, replacing stored ones; returns the number of new ones."""
        ...

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        """Delete the points at these times that are there; returns how many were."""
        ...

    async def data_mark(self, symbol: str) -> DataMark | None:
        """Up to where all points of a symbol follow its data; `None` where that is unknown."""
        ...

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        """Note it, after the points that had to be made again are written."""
        ...

    async def info(self) -> IndexInfo: ...
