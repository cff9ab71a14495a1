"""One file per gRPC service: reads the request, does one transaction, waits where waiting is asked for."""

from __future__ import annotations

import re

from frazil.model.errors import FrazilError


def page_size(asked: int, default: int, most: int) -> int:
    """Return how many entries a page may have."""
    return min(asked, most) if asked > 0 else default


def page_start(token: str) -> int:
    """Return the number in a page token (0: from the start); raises FrazilError PAGE_TOKEN_INVALID."""
    if not token:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", token):
        raise FrazilError("PAGE_TOKEN_INVALID", f"The page token {token!r} is not one of a previous reply.")
    return int(token)
