"""Write values as JSON that tells whether any byte of it was changed since."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_KEY = b', "seal": "'
_END = b'"}'
_LENGTH = 16


def seal(value: dict[str, Any]) -> bytes:
    """Return a value, which is not empty, as one line of JSON with a seal, a hash of the rest."""
    content = json.dumps(value).encode().removesuffix(b"}")
    return content + _KEY + _hash(content) + _END


def unseal(line: bytes) -> dict[str, Any]:
    """Return a value as it was sealed; raises ValueError where the line is not as it was."""
    content, key, rest = line.rstrip(b"\r\n").rpartition(_KEY)
    if not key or rest != _hash(content) + _END:
        raise ValueError("its seal is broken")
    value: dict[str, Any] = json.loads(content + b"}")
    return value


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_LENGTH].encode()
