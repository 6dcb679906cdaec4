"""Lists of labels of a flat validation folder."""

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dhm.errors import InputError

LISTS = ("val.txt", "val_labels.txt", "val_annotations.txt", "synset_labels.txt",
         "imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv")  # fmt: skip
"""Names a list of a flat validation folder may have, in val/ or beside it; see `flat_labels`."""
_MOST, _LONGEST = 2**28, 2**12
"""Bytes of a list, and characters of a line: Kaggle's, with the boxes of an image, end before 2,000."""


def flat_labels(folder: Path, names: Sequence[str], classes: Sequence[str] = ()) -> list[str]:
    """The class of every image of a flat val/, from the list in val/ or in `folder` (for its names see `LISTS`).

    Accepted, one image a line, its fields set apart by tabs, commas, semicolons or spaces:

    - `ILSVRC2012_val_00000001.JPEG n01751748`, the class by its folder's name (WordNet id);
    - `ILSVRC2012_val_00000001.JPEG 65`, by its place in the sorted names, counted from 0;
    - `n01751748`, as many lines as images, in the order of the sorted file names;
    - Kaggle's `LOC_val_solution.csv`: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`.

    Names and classes may hold spaces, and stand in quotation marks. A name may lack its extension, or have another,
    where only one image can be meant. Read as UTF-8, or as UTF-16 where the file begins so; bytes that are neither are
    kept, so that they match file names of the same encoding.

    The development kit's `ILSVRC2012_validation_ground_truth.txt` numbers the classes in an order of its own (in
    meta.mat), so it is refused.

    Raises:
        InputError: there is no list, it does not fit the images or contradicts itself, or its lines are of another
            form.
    """
    places = [place / name for place in (folder / "val", folder) for name in LISTS]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(
            f"{folder / 'val'} holds images outside class folders, and the list of their labels is missing: put "
            f"{LISTS[0]} there"
        )
    lines = _lines(file)
    column = [line.strip('"') for line in lines]
    if len(column) == len(names) and all(given in classes or re.fullmatch(r"[^\s,;]+", given) for given in column):
        if all(given.isdecimal() for given in column):
            raise InputError(f"{file} holds bare numbers, whose order it does not give; name the classes instead")
        found = dict(zip(names, column, strict=True))
    else:
        found = _by_name(lines, names, classes, file)
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise InputError(f"{file} has no label for {missing}")
    return [_class_name(found[name], classes, file) for name in names]


def _lines(file: Path) -> list[str]:
    """The lines of a list that hold anything."""
    try:
        size = file.stat().st_size
        if size > _MOST:
            raise InputError(f"{file} has {size:,} bytes, more than the {_MOST:,} that are read of a list")
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding, "surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} cannot be read as text: {error}") from None
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    long = next((number for number, line in enumerate(lines, start=1) if len(line) > _LONGEST), None)
    if long is not None:
        raise InputError(f"{file} is no list of labels: its line {long} has more than {_LONGEST:,} characters")
    return lines


def _by_name(lines: Sequence[str], names: Sequence[str], classes: Sequence[str], file: Path) -> dict[str, str]:
    """Labels by the image a line names; lines of images that are not there are passed over."""
    stems = Counter(os.path.splitext(name)[0] for name in names)
    whole = dict(zip(names, names, strict=True))
    by_stem = {stem: name for name in names if stems[stem := os.path.splitext(name)[0]] == 1}
    ways: list[Callable[[str], str | None]] = [
        whole.get,
        lambda given: by_stem.get(given) or by_stem.get(re.sub(r"\.\w+$", "", given)),
    ]
    found: dict[str, str] = {}
    known = frozenset(classes)
    for line in lines:
        try:
            name, label = next(filter(None, (_match(line, way, known) for way in ways)), ("", ""))
        except csv.Error as error:
            raise InputError(f"{file} is no list of labels: {error}") from None
        if label and found.setdefault(name, label) != label:
            raise InputError(f"{file} gives {name} two labels, {found[name]} and {label}")
    return found


def _match(line: str, image: Callable[[str], str | None], classes: Collection[str]) -> tuple[str, str] | None:
    """The image a line begins with, by the longest name that is one, and its label: of the ways to read the line the
    first that gives a class, else the first."""
    first = None
    for delimiter in filter(line.__contains__, "\t,; "):
        for fields in (*csv.reader([line], delimiter=delimiter), line.split(delimiter)):
            for count in range(len(fields) - 1, 0, -1):
                name = image(re.split(r"[/\\]", delimiter.join(fields[:count]).strip())[-1])
                if name is not None:
                    label = _label(fields[count:], delimiter, classes)
                    if not classes or label in classes:
                        return name, label
                    first = first or (name, label)
                    break
    return first


def _label(fields: Sequence[str], delimiter: str, classes: Collection[str]) -> str:
    """The longest beginning that is a class; else the first field, without what follows in numbers, as boxes do in
    Kaggle's list."""
    starts = (delimiter.join(fields[:count]).strip() for count in range(len(fields), 0, -1))
    known = next((start for start in starts if start in classes), None)
    if known is not None:
        return known
    words = " ".join(fields if delimiter == " " else fields[:1]).split()
    numbers = any(word.lstrip("-").isdecimal() for word in words[1:])
    return words[0] if numbers else " ".join(words)


def _class_name(given: str, classes: Sequence[str], file: Path) -> str:
    """The class a list means: its name, or the name at the place the list gives."""
    if not given.isdecimal() or given in classes or not classes:
        return given
    if int(given) >= len(classes):
        raise InputError(f"{file} has the label {given}, but there are {len(classes)} classes, counted from 0")
    return classes[int(given)]
