"""What a dead worker's log ends with, as one line for people. Pure."""

from __future__ import annotations

import json

WORDS_MAX = 300


def last_words(log_tail: str) -> str:
    """Return the reason in the last line of a log: a record's sentence, or the last line of its traceback; "" if there is none.

    A record whose beginning is cut off is taken as it stands.
    """
    line = next((line.strip() for line in reversed(log_tail.splitlines()) if line.strip()), "")
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if isinstance(record, dict):
        traceback = str(record.get("exception") or "").strip().splitlines()
        line = str(record.get("sentence") or (traceback[-1] if traceback else record.get("event") or line))
    elif "\\n" in line:  # the end of a record with a traceback
        line = line.rsplit("\\n", 1)[1].rstrip('"}')
    return line if len(line) <= WORDS_MAX else f"…{line[-WORDS_MAX:]}"
