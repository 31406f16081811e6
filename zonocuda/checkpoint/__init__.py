"""The state of a long computation as a file: written whole or not at all, read within bounds, refused where it is of
another computation. It knows nothing of what it holds."""

from zonocuda.checkpoint.codec import CodecError, alike, decode, digest, encode, moved
from zonocuda.checkpoint.file import CheckpointError, read, write

__all__ = ["CheckpointError", "CodecError", "alike", "decode", "digest", "encode", "moved", "read", "write"]
