"""Arrays from .npy files, which hold numbers and nothing that could run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_KINDS = {"numbers": "fiu", "integers": "iu"}


def load_array(path: str, content: Literal["numbers", "integers"]) -> NDArray[Any]:
    """The array of a .npy file: float64 of ``numbers``, int64 of ``integers``. No pickle is ever read.

    Raises:
        ValueError: the file is no .npy file, or holds something else, or a number that is not finite.
        OSError: it cannot be read.
    """
    try:
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            raise ValueError("it is not a regular file")  # a pipe might never end
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS[content]:
            raise ValueError(f"it holds no {'real numbers' if content == 'numbers' else 'integers'}")
        wide = np.ascontiguousarray(array, dtype=np.float64 if content == "numbers" else np.int64)
    except OSError:
        raise
    except (Exception, MemoryError) as error:  # numpy's reader lets through whatever headers and archives raise
        raise ValueError(f"{path}: not a .npy file of {content} ({error})") from error
    if not np.isfinite(wide).all():
        raise ValueError(f"{path}: holds a NaN or an infinity")
    return wide.reshape(array.shape)  # ascontiguousarray makes a number an array of one
