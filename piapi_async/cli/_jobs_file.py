"""JOBS, the file of a batch: JSON lines or CSV, one request a line, read again and again from the front.

Pure reading: what is wrong with a line is a value with the line's number, and nothing is sent. A line is an object (or
a row under a first line of names) with the fields of the typed requests, and with `task_type` and `key`. Pictures are
looked for beside the file, and a pattern such as `photos/*.jpg` makes a job of each file that it finds.
"""

import csv
import difflib
import glob
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import attrs
import click

from piapi_async import _media, _validators, flux
from piapi_async.cli import _types
from piapi_async.cli._errors import spoken
from piapi_async.flux import ControlNet, ImageSource, LoRA
from piapi_async.task import Submittable

KINDS: Mapping[str, Any] = {
    kind.task_type: kind
    for kind in (
        *(flux.Img2Img, flux.Img2ImgLora, flux.ControlNetLora, flux.Txt2Img, flux.Txt2ImgLora),
        *(flux.FillInpaint, flux.FillOutpaint, flux.ReduxVariation, flux.Kontext),
    )
}
"""The class of each task type."""

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}
"""What the ending of a file's name says."""

FIELDS = tuple(dict.fromkeys(field.name for kind in KINDS.values() for field in attrs.fields(kind)))
COLUMNS = ("key", "task_type", *sorted({*FIELDS, "control"}))
"""The names that a line may use, though not all with each task type."""

CELL = 64 * 1024 * 1024
"""Characters of a cell at most; a picture's data URI may stand in one."""

_NUMBERS = {
    field.name for kind in KINDS.values() for field in attrs.fields(kind) if field.type not in (str, str | None)
} - {"image", "lora", "control_net"}
_WHOLE = re.compile(r"[-+]?\d{1,30}", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_A_LINE = 'each line must be one whole JSON object, such as {"prompt": "a bear", "image": "a.jpg"}'
_BOM = b"\xef\xbb\xbf"


class MistakeError(ValueError):
    """A line that is no job: where, and why."""

    def __init__(self, where: str, number: int, why: str) -> None:
        super().__init__(f"{where}:{number}: {why}")


@attrs.frozen(kw_only=True)
class Order:
    """One job as the file asks for it.

    Attributes:
        number: Its line, from 1 on.

        key: The name that the line gives it, or `None`.

        request: What is asked for.
    """

    number: int
    key: str | None
    request: Submittable


Given = tuple[int, Mapping[str, Any] | Exception]
"""What a line holds, or what is wrong with it."""


@attrs.define(eq=False)
class Lines:
    """The lines of a file as text, counted. One that is no UTF-8 raises, and the next call goes on behind it."""

    _file: IO[bytes]
    number: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.number += 1
        return (line.removeprefix(_BOM) if self.number == 1 else line).decode()


@attrs.frozen(kw_only=True)
class JobsFile:
    """A file of jobs.

    Attributes:
        file: It, open for reading bytes, and seekable.

        name: What it is called in messages.

        format: `"jsonl"` or `"csv"`.

        folder: Where its relative paths begin.

        out: The folder of the results, in which no pattern finds anything: started again, the batch would take results
            for sources.

        depth: How many folders below it they may be.
    """

    file: IO[bytes]
    name: str
    format: str
    folder: Path
    out: Path
    depth: int = 0

    def orders(self) -> Iterator[Order]:
        """All jobs.

        Raises:
            MistakeError: A line is none.
        """
        for found in self.read():
            if isinstance(found, MistakeError):
                raise found
            yield found

    def read(self) -> Iterator[Order | MistakeError]:
        """All jobs, and all lines that are none."""
        self.file.seek(0)
        lines = Lines(self.file)
        for number, given in (_csv if self.format == "csv" else _json)(lines):
            if isinstance(given, Exception):
                yield self.mistake(number, given)
            else:
                yield from self._from(number, given)

    def _from(self, number: int, given: Mapping[str, Any]) -> Iterator[Order | MistakeError]:
        try:
            fields = {name: value for name, value in given.items() if value is not None}
            key, kind = _key(fields), _kind(fields)
            for picture in self._sources(fields, key=key):
                made = self._request(kind, {**fields, **picture})
                yield Order(number=number, key=key, request=made)
        except (TypeError, ValueError, OSError, click.BadParameter) as error:
            yield self.mistake(number, error)

    def mistake(self, number: int, error: Exception) -> MistakeError:
        """What is wrong with a line, for people."""
        words = error.message if isinstance(error, click.BadParameter) else spoken(error)
        return MistakeError(self.name, number, words)

    def _sources(self, fields: dict[str, Any], *, key: str | None) -> Iterator[dict[str, Any]]:
        """The `image` of each job that a line stands for, if it has any."""
        image = fields.get("image")
        if not isinstance(image, str) or not self._is_pattern(image):
            yield {}
            return
        if key is not None:
            raise ValueError(f"key {key!r} cannot be that of all files of the pattern {image!r}; leave it out")
        found = sorted(path for path in map(self.folder.joinpath, self._found(image)) if path.is_file())
        sources = [path for path in found if not self._is_result(path)]
        where = f" but in {self.out}, where the results go; choose another --out" if found else ""
        if not sources:
            raise ValueError(f"image {image!r} finds no file{where}")
        if len(sources) < len(found):
            warnings.warn(f"image {image!r} leaves out what is in {self.out}, where the results go", stacklevel=2)
        yield from ({"image": str(path.absolute())} for path in sources)

    def _found(self, pattern: str) -> Sequence[str]:
        return glob.glob(pattern, root_dir=self.folder, recursive=True)  # noqa: PTH207 - `Path.glob` takes no absolute one

    def _is_result(self, path: Path) -> bool:
        return self.out.resolve() in (path.parent.resolve() / path.name).parents[: self.depth + 1]

    def _is_pattern(self, image: str) -> bool:
        is_link = _validators.is_http_url(image) or _media.is_data_uri(image)
        return not is_link and glob.has_magic(image) and not (self.folder / image).is_file()

    def _request(self, kind: Any, fields: dict[str, Any]) -> Submittable:
        fields = {
            name: _PARTS[name](self, value) if name in _PARTS else _number(value) if self._is_text(name) else value
            for name, value in fields.items()
        }
        made: Submittable = _made(kind, fields, of=f"task type {kind.task_type!r}")
        return made

    def _is_text(self, name: str) -> bool:
        return self.format == "csv" and name in _NUMBERS

    def picture(self, value: Any, *, name: str = "image") -> ImageSource:
        """A picture beside the file, or a link."""
        if not isinstance(value, str):
            raise _validators.refuse(TypeError, name=name, allowed="a file, an http(s) URL or a data URI", value=value)
        if _validators.is_http_url(value) or _media.is_data_uri(value):
            return value
        path = self.folder / value
        if not path.is_file():
            beside = "" if self.folder == Path() else f"; files are looked for in {self.folder}"
            raise ValueError(f"{name} {_validators.short(value)} is neither a file nor an http(s) URL{beside}")
        with path.open("rb") as file:
            if _media.sniff(file.read(64)) is None:
                raise ValueError(f"{name} {_validators.short(value)} is no picture ({_media.KNOWN_FORMATS})")
        return path

    def lora(self, value: Any) -> LoRA:
        """A LoRA: NAME, NAME:STRENGTH, or an object."""
        if not isinstance(value, str):
            made: LoRA = self._part(LoRA, "lora", value)
            return made
        try:
            return _types.lora(value)
        except click.BadParameter:
            allowed = "NAME or NAME:STRENGTH, such as mjv6 or mjv6:0.8"
            raise _validators.refuse(ValueError, name="lora", allowed=allowed, value=value) from None

    def control(self, value: Any) -> ControlNet:
        """A ControlNet: TYPE:IMAGE, or an object."""
        if not isinstance(value, str):
            made: ControlNet = self._part(ControlNet, "control_net", value)
            return made
        control_type, _, picture = value.partition(":")
        if not (control_type.strip() and picture):
            raise ValueError(
                f"control_net {_validators.short(value)} is not TYPE:IMAGE; write for example canny:edges.png"
            )
        return ControlNet(control_type, image=self.picture(picture, name="control_net image"))

    def _part(self, kind: Any, name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise _validators.refuse(TypeError, name=name, allowed="a text or an object", value=value)
        given = {field: item for field, item in value.items() if item is not None}
        is_picture = "image" in given
        pictures = {"image": self.picture(given["image"], name=f"{name} image")} if is_picture else {}
        return _made(kind, {**given, **pictures}, of=name)


_PARTS: Mapping[str, Callable[[JobsFile, Any], Any]] = {
    "image": JobsFile.picture,
    "lora": JobsFile.lora,
    "control_net": JobsFile.control,
    "model": lambda _jobs, value: _types.MODELS.get(value, value) if isinstance(value, str) else value,
}
"""How those fields are read that are more than a value."""


def _made(kind: Any, fields: Mapping[str, Any], *, of: str) -> Any:
    """The object of a class, or a sentence that says what the line lacks or has too much."""
    allowed = {field.name: field.default is attrs.NOTHING for field in attrs.fields(kind)}
    for name in fields:
        if name not in allowed:
            raise ValueError(f"{_validators.short(name)} is no field of {of}{_meant(name, allowed)}")
    missing = [name for name, is_needed in allowed.items() if is_needed and name not in fields]
    if missing:
        raise ValueError(f"{missing[0]} is missing; {of} needs it")
    return kind(**fields)


def _meant(name: str, allowed: Collection[str]) -> str:
    """What a name may be instead."""
    near = difflib.get_close_matches(name.strip().lower(), allowed, n=1, cutoff=0.8)
    question = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{question}; allowed are {', '.join(allowed)}"


def _key(fields: dict[str, Any]) -> str | None:
    key = fields.pop("key", None)
    _validators.key(key)
    return key  # type: ignore[no-any-return] # looked at above


def _kind(fields: dict[str, Any]) -> Any:
    """The class of the line's task type: what it says, or what follows from `lora` and `control`, as in `img2img`."""
    if "control" in fields:
        if "control_net" in fields:
            raise ValueError("control and control_net are two names of the same; give one")
        fields["control_net"] = fields.pop("control")
    implied = "controlnet-lora" if "control_net" in fields else "img2img-lora" if "lora" in fields else "img2img"
    task_type = fields.pop("task_type", implied)
    if not isinstance(task_type, str) or task_type not in KINDS:
        raise _validators.refuse(ValueError, name="task_type", allowed=f"one of {', '.join(KINDS)}", value=task_type)
    return KINDS[task_type]


def _number(cell: str) -> int | float | str:
    """The number that a cell holds; what is none is left for the request to refuse."""
    if _WHOLE.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell


def _json(lines: Lines) -> Iterator[Given]:
    while True:
        try:
            text = next(lines, None)
            if text is None:
                return
            if text.strip():
                yield lines.number, _object(text)
        except RecursionError:
            yield lines.number, ValueError("it is nested too deep")
        except (TypeError, ValueError) as error:
            yield lines.number, _no_json(error)


def _object(text: str) -> Mapping[str, Any]:
    found = json.loads(text.rstrip(), parse_constant=_no_constant, object_pairs_hook=_once_each)
    if not isinstance(found, dict):
        raise _validators.refuse(TypeError, name="a line", allowed="a JSON object", value=found)
    return found


def _no_json(error: Exception) -> Exception:
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"no JSON: {error.msg} at column {error.colno}; {_A_LINE}")
    return _no_text() if isinstance(error, UnicodeDecodeError) else error


def _no_text() -> Exception:
    return ValueError("it is no UTF-8 text")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_validators.short(twice)} is given twice")
    return found


def _csv(lines: Lines) -> Iterator[Given]:
    csv.field_size_limit(CELL)
    rows = _rows(lines)
    number, names = next(rows, (1, []))
    if isinstance(names, Exception):
        yield number, names
        return
    if (problem := _no_names(names)) is not None:
        yield number, problem
        return
    for number, row in rows:
        if isinstance(row, Exception):
            yield number, row
        elif len(row) != len(names):
            quote = "; a text with a comma in it must be in double quotes" if len(row) > len(names) else ""
            yield number, ValueError(f"it has {len(row)} cells, and the first line has {len(names)} names{quote}")
        else:
            yield number, {name: cell.strip() for name, cell in zip(names, row, strict=True) if cell.strip()}


def _rows(lines: Lines) -> Iterator[tuple[int, list[str] | Exception]]:
    """The rows that are not empty, by the lines on which they begin."""
    reader = csv.reader(lines, strict=True)
    while True:
        number = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield number, ValueError(f"no CSV: {error}")
        except UnicodeDecodeError:
            yield lines.number, _no_text()
        else:
            if row is None:
                return
            if any(cell.strip() for cell in row):
                yield number, row


def _no_names(names: list[str]) -> Exception | None:
    names[:] = [name.strip() for name in names]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        if len(names) == 1 and (separator := next((mark for mark in ";\t|" if mark in unknown[0]), None)):
            return ValueError(
                f"its columns must be separated by ',', got {separator!r} in {_validators.short(unknown[0])}"
            )
        said = f"the first line must name the columns, and {_validators.short(unknown[0])} is none"
        return ValueError(f"{said}{_meant(unknown[0], COLUMNS)}")
    twice = [name for name in names if names.count(name) > 1]
    return ValueError(f"column {twice[0]!r} is there twice") if twice else None
