"""Names of files: readable where they can be, and in their directory whatever a server or a template says."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from piapi_async import Image, TaskInfo, TaskStatus
from piapi_async.files._naming import FIELDS, Naming, naming, safe_name

CREATED = dt.datetime(2026, 11, 24, 15, 25, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
ID = "1631d053-2352-4add-95cc-360fc52d5f89"
HOSTILE = st.text(max_size=300) | st.sampled_from(
    [
        "../evil",
        "/etc/passwd",
        "..",
        ".",
        "",
        "C:\\x",
        "CON",
        "aux.png",
        "a\0b",
        ".a",
        "a/b",
        "x" * 300,
        "\ud800",
        "NU",
        "L",
    ]
)
FILLED = ["{task_id}", "{model}", "{task_type}", "{n}", "{n:03}", "{date}", "{time}", "{model:.3}", "{n:.0e}"]
ODD = [
    "{n!r}",
    "{x}",
    "{n:{n}}",
    "{n.x}",
    "{n:/>9}",
    "/",
    "..",
    ".",
    "\\",
    "C:",
    "\0",
    "a",
    "-",
    "{{",
    "}}",
    "{",
    "con",
]
TEMPLATES = st.lists(st.sampled_from(FILLED + ODD) | st.text(max_size=4), max_size=8).map("".join)


def info(**fields: Any) -> TaskInfo:
    """A completed task."""
    given = {"task_id": ID, "model": "Qubico/flux1-dev", "task_type": "img2img", "created_at": CREATED} | fields
    return TaskInfo(status=TaskStatus.COMPLETED, images=(Image("https://example.com/a.png"),), **given)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{task_id}", ID),
        ("{model}/{task_type}-{n:03}", "Qubico-flux1-dev/img2img-001"),
        ("{date}/{time}", "2026-11-24/142530"),
        ("{task_id:.8}", "1631d053"),
        ("{n:>3}", "1"),
        ("{n:*^7}x", "1x"),
        ("cat {{{n}}} v1.5", "cat {1} v1.5"),
        (".hidden/{n}", ".hidden/1"),
        ("кот-{n}", "кот-1"),
        ("con", "file-4b5b6d3e6d1c8a5c"),
    ],
)
def test_template_is_filled_in(template: str, path: str) -> None:
    """Fields and their formats give the names that the documentation says."""
    (given,) = Naming(template).paths(info(), count=1)
    assert given == path or (template == "con" and given.startswith("file-"))


def test_without_a_template_the_task_names_its_pictures() -> None:
    """The default is the task's id, with numbers where there are several."""
    assert naming(None).paths(info(), count=1) == (ID,)
    assert naming(None).paths(info(), count=2) == (f"{ID}-1", f"{ID}-2")
    assert naming("{date}").paths(info(created_at=None), count=1) == ("unknown",)
    assert naming("{time}").paths(info(created_at=None), count=1) == ("unknown",)
    assert naming("{time}").paths(info(created_at=CREATED.replace(tzinfo=None)), count=1) == ("152530",)
    assert naming("{model}-{task_type}").paths(info(model="", task_type=""), count=1) == ("unknown-unknown",)


def test_numbers_are_added_only_where_they_are_needed() -> None:
    """With `{n}` nothing is added, unless its format makes two pictures alike: none may replace the other."""
    assert naming("{n:02}").paths(info(), count=2) == ("01", "02")
    assert naming("{n}/x").paths(info(), count=2) == ("1/x", "2/x")
    assert naming("x").paths(info(), count=2) == ("x-1", "x-2")
    assert len(set(naming("{n:.0e}").paths(info(), count=12))) == 12


def test_sidecar_is_named_as_a_single_picture_would_be() -> None:
    """The side-car has the first picture's name without the number that was added."""
    assert naming(None).sidecar(info()) == f"{ID}.json"
    assert naming("{model}/{n:03}").sidecar(info()) == "Qubico-flux1-dev/001.json"


def test_long_names_are_shortened_and_stay_apart() -> None:
    """What the fields make too long for a file system is cut, with a digest of the whole."""
    template = "ä" * 60 + "{model}-{task_type}-{task_id}-{n}"
    many = info(model="m" * 500, task_type="t" * 500, task_id="i" * 100)
    first, second = naming(template).paths(many, count=2)
    assert first != second
    assert len(first.encode()) <= 240


OUT = ["", "/", "/etc/{n}", "a//b", "a/", "../{n}", "a/../b", "./a", "a/.", "C:{n}", "C:/a", "a\\b", "a\0b", "a\nb"]
FIELDLESS = ["{task_id.x}", "{task_id[0]}", "{n!r}", "{}", "{0}", "{user}", "{n", "n}", "{n:{n}}", "{n:s}", "{date:%Y}"]
ENDED = ["{task_id}.png", "a.JPG", "a.jpeg", "{n}.json"]
UNFIT = ["{n:999999999}", "{task_id:d}", "a ", " a/b", "a./b", "x" * 201, "a?b", "a*b", "\ud800"]


@pytest.mark.parametrize("template", [*OUT, *FIELDLESS, *ENDED, *UNFIT])
def test_template_that_leads_elsewhere_is_refused(template: str) -> None:
    """One sentence says what is allowed: no attributes, no way out, no ending, no format that cannot be."""
    with pytest.raises(ValueError, match=r"^name must be a relative path without an ending, .*\{task_id\}.*, got "):
        Naming(template)


@pytest.mark.parametrize("template", [1, b"a", Path("a")])
def test_template_that_is_no_text_is_refused(template: Any) -> None:
    """A template is a string."""
    with pytest.raises(TypeError, match=r"^name must be a relative path"):
        naming(template)


@given(TEMPLATES, HOSTILE, HOSTILE, HOSTILE, st.integers(1, 5))
@example("{model}{task_type}", "x", "NU", "L", 1)
@example(".{model}.", "x", ".", ".", 1)
def test_any_template_and_any_task_stay_in_the_directory(
    template: str, task_id: str, model: str, task_type: str, count: int
) -> None:
    """Whatever the template and whatever a server says: a path below the directory for each picture, or ValueError."""
    try:
        rule = Naming(template)
    except ValueError:
        return
    task = info(task_id=task_id, model=model, task_type=task_type)
    paths = rule.paths(task, count=count)
    assert len({path.lower() for path in paths}) == count
    for path in (*paths, rule.sidecar(task)):
        assert "\\" not in path
        assert "\0" not in path
        assert ":" not in path
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        for part in parts:
            assert len(part.encode()) <= 245
            assert part.split(".")[0].upper() not in {"CON", "NUL", "AUX", "PRN", "COM1"}


@given(HOSTILE)
def test_what_a_server_chose_is_one_harmless_word(text: str) -> None:
    """Each field, filled in alone, is a visible name without separators, of at most 100 characters of plain ASCII."""
    task = info(task_id=text, model=text, task_type=text)
    for field in FIELDS:
        (path,) = Naming("{" + field + "}").paths(task, count=1)
        assert safe_name(path) == path


DEVICES = ["CON", "con .txt", "Nul.tar.gz", "COM\u00b9", "lpt\u00b3.x", "CONIN$", "conout$.txt", "aux  ", "PRN."]


@pytest.mark.parametrize("name", DEVICES)
def test_devices_are_not_made_by_a_server_or_a_template(name: str) -> None:
    """What Windows takes for a device, with an ending or blanks behind it, is not the name of a file or folder."""
    assert safe_name(name).startswith("file-")
    template = name.rstrip(". ")
    for path in (f"{template}/{{n}}", f"x/{template}"):
        assert any(part.startswith("file-") for part in Naming(path).paths(info(), count=1)[0].split("/"))
    assert Naming("{model}").paths(info(model=name), count=1)[0].lower().partition(".")[0] not in ("con", "aux", "nul")


@pytest.mark.parametrize("name", ["a.", "a..", "a.png.", "a ", ".", "-."])
def test_no_name_ends_in_a_dot_or_blank(name: str) -> None:
    """Windows drops a dot or blank at the end of a name, which then is another's: no file or folder is called so."""
    for template in ("{task_id}/x", "{task_id}", "{model}/x"):
        path = Naming(template).paths(info(task_id=name, model=name), count=1)[0]
        assert not any(part.endswith((".", " ")) for part in path.split("/"))
    assert safe_name("a.") != safe_name("a")


@pytest.mark.parametrize("name", ["CONIN", "com10", "com", "lpt", "a.con", "auxiliary", "a..b", "x" * 100])
def test_harmless_names_stay(name: str) -> None:
    """Only the very names of devices, and dots at the end, are special."""
    assert safe_name(name) == name
