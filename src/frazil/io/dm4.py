"""Images of Gatan's DigitalMicrograph (.dm4, .dm3): the largest image of a file, read with struct only and bounds-checked.

A reader of our own: the libraries that read DM files are GPL (ncempy, RosettaSciIO), or (dm4, MIT) trust every length in the
file and are no longer developed. Layout after the public description of the format at
https://personal.ntu.edu.sg/cbb/info/dmformat; DM3 differs in the width of its lengths only.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from frazil.model.errors import InputError

SUFFIXES = (".dm4", ".dm3")

_TAG_DIRECTORY, _TAG_DATA, _TAG_END = 20, 21, 0
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_NUMBERS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q", 12: "Q"}
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}  # of ImageData.DataType
_DEPTH_MAX, _TAGS_MAX, _NAME_MAX, _SIDE_MAX_PX = 32, 200_000, 1024, 65_536


@dataclass(slots=True)
class _Image:
    """What the tags under one `ImageData` say."""

    sides: list[int] = field(default_factory=list)
    data_type: int = 0
    offset: int = 0
    byte_count: int = 0


def read_dm4(path: Path) -> npt.NDArray[Any]:
    """Return the largest image of a file, `(y, x)` or `(z, y, x)`, its top row first, in the file's own dtype.

    Raises InputError when the file is no DM3 or DM4 file, is cut, or holds no image of real numbers.
    """
    with path.open("rb") as stream:
        tags = _Tags(stream, path.stat().st_size, path.name)
        images = [image for image in tags.read() if image.data_type in _PIXELS and 2 <= len(image.sides) <= 3]
        if not images:
            raise InputError("DM_IMAGE", f"{path.name} holds no image of real numbers.")
        image = max(images, key=lambda one: one.byte_count)
        dtype = np.dtype(_PIXELS[image.data_type]).newbyteorder(tags.order)
        count = math.prod(image.sides)
        if not all(0 < side <= _SIDE_MAX_PX for side in image.sides) or count * dtype.itemsize > image.byte_count:
            raise InputError("DM_IMAGE", f"{path.name} is broken: its image does not fill {image.sides} pixels.")
        pixels = np.fromfile(path, dtype=dtype, count=count, offset=image.offset)
    return pixels.reshape(image.sides[::-1]).astype(dtype.newbyteorder("="), copy=False)


class _Tags:
    """One walk through the tree of tags; only what describes images is kept."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream, self._size, self._name = stream, size, name
        self._left = _TAGS_MAX
        self._images: dict[tuple[int, ...], _Image] = {}
        (version,) = struct.unpack(">I", self._take(4))
        if version not in (3, 4):
            raise InputError("DM_HEADER", f"{name} is not a DM3 or DM4 file.")
        self._long = ">Q" if version == 4 else ">I"
        self._sized = version == 4  # DM4 tags say how many bytes they take
        self._number(self._long)  # length of the file; not to be relied upon
        self.order: Literal["<", ">"] = "<" if self._number(">I") == 1 else ">"

    def read(self) -> list[_Image]:
        """Walk the tree and return the images it describes."""
        self._directory((), ())
        return list(self._images.values())

    def _directory(self, names: tuple[str, ...], place: tuple[int, ...]) -> None:
        """Read one directory; `place` numbers the entries on the way to it."""
        if len(names) > _DEPTH_MAX:
            raise self._broken("its tags are nested too deeply")
        self._take(2)
        for number in range(self._number(self._long)):
            kind = self._number(">B")
            if kind == _TAG_END:
                return
            self._left -= 1
            if self._left < 0:
                raise self._broken("it has too many tags")
            length = self._number(">H")
            if length > _NAME_MAX:
                raise self._broken("a tag has no possible name")
            name = self._take(length).decode("latin-1")
            if self._sized:
                self._number(self._long)
            if kind == _TAG_DIRECTORY:
                self._directory((*names, name), (*place, number))
            elif kind == _TAG_DATA:
                self._data((*names, name), (*place, number))
            else:
                raise self._broken("a tag is of no known kind")

    def _data(self, names: tuple[str, ...], place: tuple[int, ...]) -> None:
        """Read or skip the value of one tag."""
        if self._take(4) != b"%%%%":
            raise self._broken("a tag lacks its mark")
        length = self._number(self._long)
        if not 1 <= length <= _NAME_MAX:
            raise self._broken("a tag makes no sense")
        info = [self._number(self._long) for _ in range(length)]
        if len(info) == 1 and info[0] in _NUMBERS:
            value = self._number(f"{self.order}{_NUMBERS[info[0]]}")
            self._keep(names, place, int(value) if math.isfinite(value) else 0)
        elif info[0] == _ARRAY and len(info) == 3 and info[1] in _NUMBERS:
            byte_count = info[2] * struct.calcsize(f"={_NUMBERS[info[1]]}")
            if names[-2:] == ("ImageData", "Data"):
                image = self._image(place[:-1])
                image.offset, image.byte_count = self._stream.tell(), byte_count
            self._skip(byte_count)
        else:
            self._skip(self._byte_count(info))

    def _keep(self, names: tuple[str, ...], place: tuple[int, ...], value: int) -> None:
        if names[-2:] == ("ImageData", "DataType"):
            self._image(place[:-1]).data_type = value
        elif names[-3:-1] == ("ImageData", "Dimensions"):
            self._image(place[:-2]).sides.append(value)

    def _image(self, place: tuple[int, ...]) -> _Image:
        return self._images.setdefault(place, _Image())

    def _byte_count(self, info: list[int]) -> int:
        """Return the bytes of a string, a structure, or an array of structures."""
        if info[0] == _STRING and len(info) == 2:
            return 2 * info[1]
        count = 1
        if info[0] == _ARRAY and len(info) > 4:
            info, count = info[1:-1], info[-1]
        kinds = info[4::2]
        if info[0] != _STRUCT or len(info) < 3 or len(kinds) != info[2] or not all(kind in _NUMBERS for kind in kinds):
            raise self._broken("a tag is of no known type")
        return count * sum(struct.calcsize(f"={_NUMBERS[kind]}") for kind in kinds)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        raw = self._stream.read(count)
        if len(raw) < count:
            raise self._broken("it is cut, or a length in it is wrong")
        return raw

    def _skip(self, count: int) -> None:
        if self._stream.tell() + count > self._size:
            raise self._broken("it is cut, or a length in it is wrong")
        self._stream.seek(count, 1)

    def _broken(self, why: str) -> InputError:
        return InputError("DM_BROKEN", f"{self._name} cannot be read as a DigitalMicrograph file: {why}.")
