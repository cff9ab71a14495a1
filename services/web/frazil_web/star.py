"""The few tables of a STAR file that the page draws: coordinates of picks, shifts of frames. Needs no arrays."""

from __future__ import annotations

from collections.abc import Iterator

Loop = dict[str, list[float]]


def read_loop(text: str, block: str, names: tuple[str, ...]) -> Loop:
    """Return the named numeric columns of the loop `data_<block>`; columns the file lacks are missing from the answer.

    `block` may be empty for the first loop of the file. Values that are no numbers become NaN; rows shorter than the
    header are left out, because a picture without one circle is better than no picture.
    """
    lines = _loop_lines(text, block)
    header: list[str] = []
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("_"):
            header.append(line.split()[0][1:])
        else:
            tokens = line.split()
            if len(tokens) >= len(header):
                rows.append(tokens)
    places = {name: header.index(name) for name in names if name in header}
    return {name: [_number(row[place]) for row in rows] for name, place in places.items()}


def read_value(text: str, block: str, name: str) -> float | None:
    """Return one number of the pairs in `data_<block>`, or None."""
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.lower().startswith("data_"):
            inside = line[5:].strip() == block
        elif inside and line.startswith(f"_{name}"):
            tokens = line.split()
            if tokens[0] == f"_{name}" and len(tokens) > 1:
                value = _number(tokens[1])
                return None if value != value else value
    return None


def _loop_lines(text: str, block: str) -> Iterator[str]:
    """Yield header and rows of the loop, from after `loop_` to its end."""
    inside = not block
    started = False
    for raw in text.splitlines():
        line = raw.strip()
        lower = line.lower()
        if lower.startswith("data_"):
            if started:
                return
            inside = not block or line[5:].strip() == block
        elif inside and lower.startswith("loop_"):
            if started:
                return
            started = True
        elif started and line and not line.startswith("#"):
            yield line


def _number(token: str) -> float:
    try:
        return float(token)
    except ValueError:
        return float("nan")
