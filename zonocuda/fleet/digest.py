"""What a file's content is, so that a change is noticed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The digest of a file's bytes, as they are.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_sha256(path: Path) -> str:
    """The digest of a network's file; of one whose weights lie in other files, of all of them together.

    Raises:
        OSError: it cannot be read.
    """
    own = file_sha256(path)
    others = _external(path)
    if not others:
        return own
    parts = [own, *(file_sha256(other) if other.is_file() else "absent" for other in others)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _external(path: Path) -> list[Path]:
    """Other files that hold weights; none of a file that is no ONNX model, which loading it will say."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return []
    if b"location" not in content:  # the key of a place, in any encoding
        return []
    import onnx  # where it is needed: the parent process loads it for nothing else

    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # of protobuf's own kinds
        return []
    tensors = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    places = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return [path.parent / place for place in sorted(places)]
