"""Array types, each named after what its elements are. Docstrings give the shapes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]  # UTC milliseconds
Vectors = npt.NDArray[np.float32]
Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]  # positions in another array
Mask = npt.NDArray[np.bool_]
