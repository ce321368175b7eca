"""Names for files: from texts that a server chose, and from templates that a user wrote.

A server's text never decides more than harmless characters within one part of a path. A template is the user's, so it
may make folders below the one given, and is refused when it would lead anywhere else.
"""

import hashlib
import re
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import attrs

from piapi_async import _media, _validators
from piapi_async.task import TaskInfo, TaskStatus

# Names that Windows keeps, with or without an ending, and with blanks before it, which it does not see
# (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
_DEVICE = r"(?i:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³]) *(?:\.|$)"
_SAFE_NAME = re.compile(rf"(?!{_DEVICE})[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,98}}[A-Za-z0-9_-])?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PART_MAX = 240  # bytes; file systems allow 255, and a number and an ending may follow
_SHORTENED = 200
_FIELD_MAX = 60
_TEMPLATE_MAX = 200
_SPEC = re.compile(r"[^{}\d]*\d{0,2}[^{}\d]*\d{0,2}[^{}\d]*")  # a width of 1e9 would fill the memory
_FORBIDDEN = frozenset('\\:*?"<>|')  # by Windows, for drives and streams among others
_ENDING = re.compile(rf"(?:{'|'.join(map(re.escape, _media.MEDIA_TYPES.values()))}|\.jpeg|\.json)$", re.IGNORECASE)


def safe_name(name: str) -> str:
    """A name for a file, from a text that a server chose: no separators, no dot at either end, at most 100 characters.

    Windows drops a dot at the end, so that two names would be one.
    """
    if _SAFE_NAME.fullmatch(name):
        return name
    return "file-" + _digest(name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _readable(text: str) -> str:
    """As `safe_name`, but what is harmless in the text stays: `Qubico/flux1-dev` is `Qubico-flux1-dev`."""
    kept = _UNSAFE.sub("-", text).strip("._-")[:_FIELD_MAX].rstrip("._-")
    return kept if _SAFE_NAME.fullmatch(kept) else "file-" + _digest(text)


def _in_utc(info: TaskInfo) -> datetime | None:
    time = info.created_at
    return time if time is None or time.tzinfo is None else time.astimezone(UTC)


def _date(info: TaskInfo) -> str:
    time = _in_utc(info)
    return "unknown" if time is None else time.date().isoformat()


def _time(info: TaskInfo) -> str:
    time = _in_utc(info)
    return "unknown" if time is None else f"{time:%H%M%S}"


FIELDS: Mapping[str, Callable[[TaskInfo, int], str | int]] = {
    "task_id": lambda info, _: safe_name(info.task_id),
    "model": lambda info, _: _readable(info.model or "unknown"),
    "task_type": lambda info, _: _readable(info.task_type or "unknown"),
    "n": lambda _, number: number,
    "date": lambda info, _: _date(info),
    "time": lambda info, _: _time(info),
}
"""What a template may name: the task, its model and kind, the picture's number from 1, when the task was made (UTC)."""

ALLOWED = (
    f"a relative path without an ending, made of text and {', '.join(f'{{{name}}}' for name in FIELDS)} (formats such"
    " as {n:03} may follow), its parts joined by '/', none of them empty, '.' or '..'"
)
_EXAMPLE = TaskInfo(task_id="0", status=TaskStatus.COMPLETED)


def _check(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, str):
        raise _validators.refuse(TypeError, name="name", allowed=ALLOWED, value=value)
    try:
        is_fit = len(value) <= _TEMPLATE_MAX and not _ENDING.search(value) and _is_below(_filled(value, _EXAMPLE, 1))
    except (ValueError, OverflowError):
        is_fit = False
    if not is_fit:
        raise _validators.refuse(ValueError, name="name", allowed=ALLOWED, value=value)


def _is_below(path: str) -> bool:
    """Whether a text is a path that stays in its folder, on any system."""
    is_plain = path.isprintable() and not _FORBIDDEN & set(path)
    return is_plain and all(part and part == part.strip().rstrip(".") for part in path.split("/"))


@attrs.frozen
class Naming:
    """How the pictures of a task are named: below a directory, in any case.

    Args:
        template: A relative path with the names of `FIELDS` in braces. It gets no ending: the content gives it.

    Raises:
        TypeError: The template is no string.
        ValueError: It names something else, or leads out of the directory.
    """

    template: str = attrs.field(default="{task_id}", validator=_check)

    @property
    def tells_tasks_apart(self) -> bool:
        """Whether no two tasks have pictures of the same name, so that what is there already is this task's."""
        return any(field == "task_id" for _, field, _, _ in string.Formatter().parse(self.template))

    def paths(self, info: TaskInfo, *, count: int) -> tuple[str, ...]:
        """The paths of so many pictures, without endings; `-1`, `-2`… follow where they would not differ."""
        paths = [self._path(info, number) for number in range(1, count + 1)]
        if len({path.lower() for path in paths}) < count:
            return tuple(f"{path}-{number}" for number, path in enumerate(paths, start=1))
        return tuple(paths)

    def sidecar(self, info: TaskInfo) -> str:
        """The path of what is told of the task: as the first picture's would be, were it the only one."""
        return self._path(info, 1) + ".json"

    def _path(self, info: TaskInfo, number: int) -> str:
        return "/".join(map(_tamed, _filled(self.template, info, number).split("/")))


def naming(name: str | None) -> Naming:
    """The naming that a user asks for, checked; by default a task's id. The errors are those of `Naming`."""
    return Naming() if name is None else Naming(name)


def _filled(template: str, info: TaskInfo, number: int) -> str:
    parts = string.Formatter().parse(template)
    return "".join(
        literal + ("" if field is None else _value(field, spec or "", conversion, info=info, number=number))
        for literal, field, spec, conversion in parts
    )


def _value(field: str, spec: str, conversion: str | None, *, info: TaskInfo, number: int) -> str:
    if field not in FIELDS or conversion or not _SPEC.fullmatch(spec):
        raise ValueError(field)
    value = FIELDS[field](info, number)
    return _readable(format(value, spec)) if spec else str(value)


def _tamed(part: str) -> str:
    """A part of a path that became too long, or a device's name, only when its fields were filled in."""
    if re.match(_DEVICE, part):
        return "file-" + _digest(part)
    raw = part.encode()
    return part if len(raw) <= _PART_MAX else raw[:_SHORTENED].decode(errors="ignore") + "-" + _digest(part)
