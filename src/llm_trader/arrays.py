"""Array types, each named after what its elements are, how far rounding moves equal numbers, and
what is unknown: NaN in arrays, None elsewhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]  # UTC milliseconds
Vectors = npt.NDArray[np.float32]
Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]  # positions in another array
Mask = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.uint8]  # which optional data states lack, a bit for each

# A float32 cosine summed in two orders differs by 2.4e-7 at most (384 dimensions, 200,000 pairs).
COSINE_ROUNDING: Final = 1e-6
# The same vector made on two processors differs in its last float32 digits, text vectors most.
VECTOR_ROUNDING: Final = 1e-5
# The same float64 field computed from more or less history, relative to its size.
FIELD_ROUNDING: Final = 1e-9


def none_for_nan(value: float) -> float | None:
    return None if value != value else value
