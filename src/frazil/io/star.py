"""STAR files, as RELION writes and reads them: tables of columns, and blocks of names with one value each.

A file is a mapping from block name ("particles" for `data_particles`) to a block. A block that maps names to sequences is a
loop; one that maps names to single values is a list of pairs. Names are written without the leading underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from frazil.io.atomic import atomic_path
from frazil.model.errors import InputError

Scalar: TypeAlias = str | int | float
Column: TypeAlias = npt.NDArray[Any] | list[str]
Block: TypeAlias = dict[str, Scalar] | dict[str, Column]
Tables: TypeAlias = Mapping[str, Mapping[str, Scalar] | Mapping[str, Sequence[Any] | npt.NDArray[Any]]]

_CHUNK_ROWS = 65_536
_TOKEN = re.compile(r"""\s*(?:"(.*?)"(?=\s|$)|'(.*?)'(?=\s|$)|(\S+))""")
_NEEDS_QUOTES = re.compile(r"""^$|\s|^[_#"'$;\[\]]|^(?:data_|loop_|save_|stop_|global_)""", re.IGNORECASE)
_NUMBER_LIKE = re.compile(r"^[-+.0-9naiNAI]")


def write_star(path: Path | str, tables: Tables) -> None:
    """Write tables atomically as RELION 3.1 and later read them ("# version 30001" before each).

    Floats are written with 6 decimals or, where that would lose digits, 9 significant ones. Raises ValueError when the
    columns of a loop differ in length, and InputError for text that STAR cannot hold.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for chunk in format_star(tables):
            file.write(chunk)


def format_star(tables: Tables) -> Iterator[str]:
    """Yield the text of a STAR file in pieces; see `write_star`."""
    for name, block in tables.items():
        yield f"\n# version 30001\n\ndata_{name}\n\n"
        if any(isinstance(value, str | int | float | np.generic) for value in block.values()):
            width = max(len(key) for key in block) + 1
            for key, value in block.items():
                yield f"_{key:<{width}} {_scalar_text(cast('Scalar', value))}\n"
        else:
            yield from _format_loop(cast("Mapping[str, Sequence[Any]]", block))
        yield "\n"


def read_star(path: Path | str) -> dict[str, Block]:
    """Read a STAR file: {block: {name: value or column}}. Columns of numbers become int64 or float64 arrays, others lists.

    Raises InputError naming the line when a row has another number of values than its loop has columns.
    """
    source = Path(path)
    with source.open(encoding="utf-8", errors="surrogateescape") as file:
        return _Parser(file, source.name).blocks()


def _scalar_text(value: Scalar) -> str:
    if isinstance(value, str):
        return _quote(value)
    return str(int(value)) if isinstance(value, int | np.integer) else _float_text(float(value))


def _float_text(value: float) -> str:
    return f"{value:.6f}" if value == 0.0 or 1e-2 <= abs(value) < 1e9 else f"{value:.9g}"


def _quote(text: str) -> str:
    """Return the text as one STAR token. Raises InputError for line breaks and for text with both kinds of quotes."""
    if not _NEEDS_QUOTES.search(text):
        return text
    if "\n" in text or "\r" in text or ('"' in text and "'" in text):
        raise InputError("STAR_TEXT", f"A STAR file cannot hold the text {text!r}: rename it without quotes or line breaks.")
    return f"'{text}'" if '"' in text else f'"{text}"'


def _format_loop(columns: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"the columns of a STAR loop differ in length: {sorted(lengths)}")
    yield "loop_\n"
    yield "".join(f"_{name} #{number}\n" for number, name in enumerate(columns, start=1))
    arrays = list(columns.values())
    for start in range(0, lengths.pop() if lengths else 0, _CHUNK_ROWS):
        texts = [_column_texts(array[start : start + _CHUNK_ROWS]) for array in arrays]
        yield "\n".join(map(" ".join, zip(*texts, strict=True))) + "\n"


def _column_texts(column: Sequence[Any]) -> list[str]:
    """Format one column, all rows alike, aligned to the right."""
    values = np.asarray(column)
    if values.dtype.kind in "iub":
        return [f"{value:>7d}" for value in values.tolist()]
    if values.dtype.kind == "f":
        small = np.abs(values[values != 0])
        fixed = small.size == 0 or (float(small.min()) >= 1e-2 and float(small.max()) < 1e9)
        form = "%13.6f" if fixed else "%15.9g"
        return [form % value for value in values.tolist()]
    return [_quote(str(value)) for value in column]


class _Parser:
    """Reads the lines of one STAR file block by block."""

    def __init__(self, lines: Iterator[str], name: str) -> None:
        self._lines = enumerate(lines, start=1)
        self._name = name
        self._ahead: tuple[int, str] | None = None

    def blocks(self) -> dict[str, Block]:
        found: dict[str, Block] = {}
        current: Block = {}
        for number, line in self._useful():
            lower = line.lower()
            if lower.startswith("data_"):
                current = found[line[5:].split()[0] if len(line) > 5 else ""] = {}
            elif lower.startswith("loop_"):
                cast("dict[str, Column]", current).update(self._loop())
            elif line.startswith("_"):
                tokens = _tokens(line)
                if len(tokens) < 2:
                    raise InputError("STAR_SYNTAX", f"Line {number} of {self._name} has a name without a value.")
                cast("dict[str, Scalar]", current)[tokens[0][1:]] = _scalar(tokens[1])
            else:
                raise InputError("STAR_SYNTAX", f"Line {number} of {self._name} is no part of a STAR block.")
        return found

    def _useful(self) -> Iterator[tuple[int, str]]:
        """Yield numbered lines that are neither blank nor comments; one line can be put back."""
        while True:
            if self._ahead is not None:
                numbered, self._ahead = self._ahead, None
            else:
                following = next(self._lines, None)
                if following is None:
                    return
                numbered = following
            line = numbered[1].strip()
            if line and not line.startswith("#"):
                yield numbered[0], line

    def _loop(self) -> dict[str, Column]:
        """Read column names and rows up to a blank line, a new block, or the end."""
        names: list[str] = []
        for number, line in self._useful():
            if not line.startswith("_"):
                self._ahead = (number, line)
                break
            names.append(line.split()[0][1:])
        chunks: list[list[list[str]]] = []
        rows: list[list[str]] = []
        for number, line in self._rows():
            tokens = line.split() if '"' not in line and "'" not in line else _tokens(line)
            if len(tokens) != len(names):
                raise InputError(
                    "STAR_ROW",
                    f"Line {number} of {self._name} has {len(tokens)} values for {len(names)} columns.",
                )
            rows.append(tokens)
            if len(rows) == _CHUNK_ROWS:
                chunks.append([list(column) for column in zip(*rows, strict=True)])
                rows = []
        if rows:
            chunks.append([list(column) for column in zip(*rows, strict=True)])
        return {name: _column([chunk[i] for chunk in chunks]) for i, name in enumerate(names)}

    def _rows(self) -> Iterator[tuple[int, str]]:
        """Yield the rows of a loop: lines up to a blank one or the next block."""
        if self._ahead is not None:
            first, self._ahead = self._ahead, None
            if first[1].lower().startswith(("data_", "loop_")):
                self._ahead = first
                return
            yield first
        for number, raw in self._lines:
            line = raw.strip()
            if not line:
                return
            if line.lower().startswith(("data_", "loop_")):
                self._ahead = (number, line)
                return
            if not line.startswith("#"):
                yield number, line


def _tokens(line: str) -> list[str]:
    """Split a line into its values, quotes removed."""
    return [next(group for group in match.groups() if group is not None) for match in _TOKEN.finditer(line)]


def _scalar(text: str) -> Scalar:
    if _NUMBER_LIKE.match(text) and "_" not in text:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _column(chunks: list[list[str]]) -> Column:
    """Turn the texts of a column into int64, else float64, else leave them text."""
    for dtype in (np.int64, np.float64):
        if all(_NUMBER_LIKE.match(text) and "_" not in text for chunk in chunks for text in chunk):
            try:
                parts = [np.array(chunk).astype(dtype) for chunk in chunks]
            except (ValueError, OverflowError):
                continue
            return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float64)
    return [text for chunk in chunks for text in chunk]
