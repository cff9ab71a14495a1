"""When is a movie finished? Pure rules on what was seen of it, by our own clock, never compared with a file's own time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

_FRAMES_KNOWN_FROM = 5  # movies, before their number of frames is expected of the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what."""

    settle_seconds: float = 3.0  # size and time must stand still so long
    defect_after_seconds: float = 20.0  # an incomplete file that stands still so long is registered as defective
    companion_seconds: float = 15.0  # a complete movie waits so long for its XML or mdoc


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file changes."""

    size_bytes: int
    modified_ns: int


@dataclass(slots=True)
class Sighting:
    """A file that is not registered yet: its signature, since when it has it, and how often it was seen so."""

    signature: Signature
    since: float
    count: int = 1

    def see(self, signature: Signature, now: float) -> bool:
        """Take a new look into account; True when the file has changed."""
        if signature == self.signature:
            self.count += 1
            return False
        self.signature, self.since, self.count = signature, now, 1
        return True

    def stable_seconds(self, now: float) -> float:
        """Return how long the file has stood still; one look proves nothing."""
        return now - self.since if self.count > 1 else 0.0


class Verdict(Enum):
    """What to do with a file."""

    WAIT = "wait"
    REGISTER = "register"
    REGISTER_DEFECTIVE = "register_defective"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look into a file that stands still showed."""

    complete: bool
    frame_count: int | None  # None: no header
    companion_missing: bool = False  # and it is needed
    chosen_by_glob: bool = False  # the person asked for this file
    frames_vary: bool = False  # raw frames of an exposure, whose number is not the same in every movie


@dataclass(slots=True)
class FrameExpectation:
    """The number of frames of a session's movies: a TIFF that is cut between two frames looks whole but for it."""

    _counts: Counter[int] = field(default_factory=Counter)

    def learn(self, frame_count: int) -> None:
        """Take a registered movie into account."""
        if frame_count > 1:
            self._counts[frame_count] += 1

    def misses(self, frame_count: int) -> bool:
        """Say whether a movie has fewer frames than the session's movies usually have."""
        if self._counts.total() < _FRAMES_KNOWN_FROM:
            return False
        return frame_count < self._counts.most_common(1)[0][0]


def judge(look: Look, stable_seconds: float, patience: Patience, expected: FrameExpectation) -> Verdict:
    """Decide about a file that has stood still for so long."""
    if stable_seconds < patience.settle_seconds:
        return Verdict.WAIT
    given_up = stable_seconds >= patience.defect_after_seconds
    if not look.complete or look.frame_count is None:
        if not given_up:
            return Verdict.WAIT
        return Verdict.REGISTER_DEFECTIVE if look.frame_count != 1 or look.chosen_by_glob else Verdict.IGNORE
    if look.frame_count == 1:  # an image of the atlas, a preview, a gain reference
        return Verdict.REGISTER_DEFECTIVE if look.chosen_by_glob else Verdict.IGNORE
    if not look.frames_vary and expected.misses(look.frame_count) and not given_up:
        return Verdict.WAIT
    if look.companion_missing and stable_seconds < patience.companion_seconds:
        return Verdict.WAIT
    return Verdict.REGISTER
