"""Lane backend "node": the slots of agents whose node name matches one of the lane's patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from frazil.model.errors import FrazilError


class Backend:
    """A lane of nodes. Option `nodes`: a list of patterns such as "gpu*"; without it every node belongs to the lane."""

    operator_options: frozenset[str] = frozenset()
    policy = None

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """Read the options; raises FrazilError CONFIG_INVALID for unknown ones or patterns that are not text."""
        unknown = sorted(set(options) - {"nodes"})
        if unknown:
            raise FrazilError("CONFIG_INVALID", f"[lanes.{name}] does not know {', '.join(unknown)}; it knows backend, nodes.")
        globs = options.get("nodes", [])
        if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
            raise FrazilError("CONFIG_INVALID", f'nodes in [lanes.{name}] must be a list of patterns, e.g. ["gpu*"].')
        self._globs = tuple(globs)

    def accepts(self, node_id: str) -> bool:
        """Tell whether the node's name matches a pattern; without patterns every node does."""
        return not self._globs or any(fnmatchcase(node_id, glob) for glob in self._globs)

    def node_globs(self) -> Sequence[str]:
        """Return the patterns."""
        return self._globs
