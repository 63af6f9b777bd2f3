"""Strict mode, as far as it is about filters: no filter on a field without an index."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import bad_request
from .store import Collection
from .wire import pb


def require_indexes(collection: Collection, given: pb.Filter, *, update: bool = False) -> None:
    mode = collection.request.strict_mode_config
    setting = "unindexed_filtering_update" if update else "unindexed_filtering_retrieve"
    if not mode.enabled or not mode.HasField(setting) or getattr(mode, setting):
        return
    for key in _keys(given):
        if key not in collection.indexes:
            raise bad_request(
                f'Index required but not found for "{key}". '
                "Help: Create an index for this key or use a different filter."
            )


def _keys(given: pb.Filter) -> Iterator[str]:
    at_least = given.min_should.conditions
    for condition in (*given.must, *given.should, *given.must_not, *at_least):
        kind = condition.WhichOneof("condition_one_of")
        if kind == "filter":
            yield from _keys(condition.filter)
        elif kind in ("field", "is_empty", "is_null", "nested"):
            yield getattr(condition, kind).key
