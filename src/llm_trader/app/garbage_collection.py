"""The garbage collector of a server, which lives long and answers while it collects."""

from __future__ import annotations

import gc
from typing import Final

# A call that waits is some 30 objects, and 2,000 may wait. By Python's own thresholds (700, 10, 10)
# a flood has all of them searched for cycles each second, 50 ms each time, and finds none; these
# leave a query beside `python -m benchmarks --only flood` 4 times its lone time instead of 20.
_THRESHOLDS: Final = (5_000, 20, 100)


def spare_long_lived_objects() -> None:
    """Leaves out what the start made, which lives as long as the server, and searches the rest
    less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
