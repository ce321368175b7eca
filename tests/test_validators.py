"""The validators: what they let through, and the one sentence they refuse with."""

import math
import re
import sys
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import _validators

PNG = b"\x89PNG\r\n\x1a\n"


def made(validator: _validators.Validator, value: object) -> object:
    """The value as the field `size` of a class with this validator."""
    kind = attrs.make_class("Sample", {"size": attrs.field(validator=validator)}, frozen=True)
    return kind(value).size


def refusal(validator: _validators.Validator, value: object) -> str:
    """The type and words with which a validator refuses a value."""
    with pytest.raises((TypeError, ValueError)) as caught:
        made(validator, value)
    return f"{caught.type.__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("bounds", "value", "words"),
    [
        ({}, "1", "TypeError: size must be a finite number, got '1'"),
        ({}, True, "TypeError: size must be a finite number, got True"),
        ({}, None, "TypeError: size must be a finite number, got None"),
        ({}, Decimal(1), "TypeError: size must be a finite number, got Decimal('1')"),
        ({}, Fraction(1), "TypeError: size must be a finite number, got Fraction(1, 1)"),
        ({}, math.nan, "ValueError: size must be a finite number, got nan"),
        ({}, math.inf, "ValueError: size must be a finite number, got inf"),
        ({}, -math.inf, "ValueError: size must be a finite number, got -inf"),
        ({}, 10**400, "ValueError: size must be a finite number, got 1000000000"),
        ({}, -(10**400), "ValueError: size must be a finite number, got -100000000"),
        ({"above": 0, "at_most": 1}, 0, "ValueError: size must be a finite number > 0 and <= 1, got 0"),
        ({"above": 0, "at_most": 1}, 1.5, "ValueError: size must be a finite number > 0 and <= 1, got 1.5"),
        ({"at_least": 1.5}, 1.4, "ValueError: size must be a finite number >= 1.5, got 1.4"),
        ({"at_least": 1, "integer": True}, 0, "ValueError: size must be a whole number >= 1, got 0"),
        ({"at_least": 1, "integer": True}, 2.0, "TypeError: size must be a whole number >= 1, got 2.0"),
        ({"at_least": 1, "integer": True}, True, "TypeError: size must be a whole number >= 1, got True"),
    ],
)
def test_a_bad_number_is_refused_in_one_sentence(bounds: dict[str, Any], value: object, words: str) -> None:
    """The refusal names the field, what is allowed and the value; bools, texts and exotic numbers are no numbers."""
    assert refusal(_validators.number(**bounds), value).startswith(words)


@given(st.integers() | st.floats() | st.just(10**400), st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9))
def test_a_number_is_allowed_exactly_within_its_bounds(value: float, above: float, least: float, most: float) -> None:
    """A finite number passes unchanged if and only if it is within all bounds; nothing else is ever raised."""
    check = _validators.number(above=above, at_least=least, at_most=most)
    if abs(value) <= sys.float_info.max and above < value and least <= value <= most:
        assert made(check, value) is value
    else:
        assert refusal(check, value).startswith("ValueError: size must be a finite number > ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "ValueError: size must be a text that is not blank, got ''"),
        (" \t\n", "ValueError: size must be a text that is not blank, got ' \\t\\n'"),
        (None, "TypeError: size must be a string, got None"),
        (b"a", "TypeError: size must be a string, got b'a'"),
    ],
)
def test_a_blank_text_is_refused(value: object, words: str) -> None:
    """A text needs something in it, and to be a text."""
    assert refusal(_validators.text, value) == words


def test_a_long_value_is_shortened_in_the_refusal() -> None:
    """Five megabytes in the wrong place do not end up in a message."""
    assert len(refusal(_validators.text, b"x" * 5_000_000)) < 120


@pytest.mark.parametrize("value", ["c", "A", "", 5, None, ["a"]])
def test_a_word_outside_a_closed_set_is_refused(value: object) -> None:
    """Only the words of the set pass, whatever type the value has."""
    kind = "ValueError" if isinstance(value, str) else "TypeError"
    assert refusal(_validators.one_of(("a", "b")), value) == f"{kind}: size must be one of 'a', 'b', got {value!r}"
    assert made(_validators.one_of(("a", "b")), "b") == "b"


def test_none_passes_what_is_optional() -> None:
    """`optional` lets `None` through and leaves everything else to its validator."""
    assert made(_validators.optional(_validators.text), None) is None
    assert refusal(_validators.optional(_validators.text), "").startswith("ValueError")


def test_only_callables_are_callable() -> None:
    """A number in place of a function is refused."""
    assert made(_validators.callable_, len) is len
    assert refusal(_validators.callable_, 3) == "TypeError: size must be a callable, got 3"


def test_a_class_is_no_callable() -> None:
    """A class in place of one of its objects is refused, with what to write."""
    words = "TypeError: size must be a callable, such as Path(...), not the class itself, got <class 'pathlib.Path'>"
    assert refusal(_validators.callable_, Path) == words


def test_only_instances_pass() -> None:
    """An object of another class is refused with the words given."""
    check = _validators.instance_of((int, str), allowed="a number or a name")
    assert made(check, "x") == "x"
    assert refusal(check, 1.5) == "TypeError: size must be a number or a name, got 1.5"


def test_an_unknown_name_warns_and_passes() -> None:
    """A name outside an open set is kept, with a warning that says where the known ones are."""
    check = _validators.open_name(("a",), listed="the.list")
    with pytest.warns(UserWarning, match=r"^size 'b' is not among the names in the\.list; it is sent as it is$"):
        assert made(check, "b") == "b"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(check, "a") == "a"
    assert refusal(check, " ").startswith("ValueError")
    assert refusal(check, 1).startswith("TypeError")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", True),
        ("HTTP://EXAMPLE.COM/a b".replace(" ", "%20"), True),
        ("http://[::1]:8080/a", True),
        ("http://127.0.0.1:1", True),
        ("https://bücher.example/ä", True),
        ("https://", False),
        ("https:///path", False),
        ("https://user:pw@", False),
        ("//example.com", False),
        ("ftp://example.com", False),
        ("example.com", False),
        ("C:/photo.jpg", False),
        ("https://exa mple.com", False),
        ("https://example.com/a b", False),
        (" https://example.com", False),
        ("https://example.com\n", False),
        ("https://example.com/\x00", False),
        ("\x00https://example.com", False),
        ("https://example.com/\x7f", False),
        ("https://example.com/\ud800", False),
        ("http://[::1", False),
        ("http://host:99999", False),
        ("http://host:port", False),
        ("", False),
    ],
)
def test_what_is_an_http_url(url: str, *, expected: bool) -> None:
    """A URL needs the scheme http or https, a host and a possible port, and no blank or control character anywhere."""
    assert _validators.is_http_url(url) is expected


@given(st.text() | st.text().map("https://".__add__))
def test_no_text_breaks_the_url_check(text: str) -> None:
    """Any text is a URL or is not; a text with a blank in it never is."""
    assert _validators.is_http_url(text) in ((False,) if any(map(str.isspace, text)) else (False, True))


def test_a_url_field_is_refused_in_one_sentence() -> None:
    """A field for a URL names what it wants, also when it gets no text at all."""
    assert refusal(_validators.http_url, 5) == "TypeError: size must be an http(s) URL, got 5"
    assert refusal(_validators.http_url, "x") == "ValueError: size must be an http(s) URL, got 'x'"
    assert made(_validators.http_url, "https://example.com") == "https://example.com"


@pytest.mark.parametrize(
    "value",
    ["https://e.com/a.jpg", "data:image/png;base64,iVBORw0KGgo=", Path("nowhere.png"), PNG, b"\xff\xd8\xff\xe0"],
)
def test_image_sources_that_pass(value: object) -> None:
    """A URL, a data URI, a path (not opened) and the bytes of a picture are image sources, kept as they are."""
    assert made(_validators.image_source, value) is value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "photo.jpg",
            r"ValueError: size must be an http\(s\) URL, a picture's data URI, .* or an array of uint8; a local file",
        ),
        ("data:image/png;base64,AAAA", r"ValueError: size must be .* got 'data:image/png;base64,AAAA'"),
        ("data:image/png;base64,é", r"ValueError: size must be .* got 'data:image/png;base64,é'"),
        ("data:image/png,AAAA", r"ValueError: size must be .* got 'data:image/png,AAAA'"),
        ("", r"ValueError: size must be .* got ''"),
        (b"", r"ValueError: size must be the bytes of a picture \(PNG, JPEG, .*\), got b''"),
        (b"<html>", r"ValueError: size must be the bytes of a picture .* got b'<html>'"),
        (
            [PNG],
            r"TypeError: size must be an http\(s\) URL, a picture's data URI, .* or an array of uint8, got \[b",
        ),
        (None, r"TypeError: size must be .*, got None"),
        (5, r"TypeError: size must be .*, got 5"),
    ],
)
def test_image_sources_that_are_refused(value: object, words: str) -> None:
    """Anything else is refused, and a file's name in a string is answered with how to write it."""
    assert re.match(words, refusal(_validators.image_source, value))


@pytest.mark.parametrize(
    ("validator", "value", "plain"),
    [
        (_validators.number(integer=True), np.int64(512), 512),
        (_validators.number(), np.float32(0.5), 0.5),
        (_validators.number(), np.int8(3), 3),
        (_validators.boolean, np.bool_(0), False),
        (_validators.optional(_validators.number(at_least=1, integer=True)), np.uint16(7), 7),
    ],
)
def test_numpy_scalars_are_kept_as_python_values(
    validator: _validators.Validator, value: object, plain: object
) -> None:
    """A NumPy scalar passes where its number would, and what is kept is Python's, which JSON can hold."""
    kept = made(validator, value)
    assert type(kept) is type(plain)
    assert kept == plain


@pytest.mark.parametrize(
    ("validator", "value", "words"),
    [
        (_validators.number(integer=True), np.float64(2), "TypeError: size must be a whole number, got "),
        (_validators.number(), np.bool_(1), "TypeError: size must be a finite number, got "),
        (_validators.number(), np.float32("nan"), "ValueError: size must be a finite number, got "),
        (_validators.number(), np.complex64(1), "TypeError: size must be a finite number, got "),
        (_validators.number(at_most=1), np.int64(2), "ValueError: size must be a finite number <= 1, got "),
        (_validators.number(), np.array([1]), "TypeError: size must be a finite number, got "),
        (_validators.boolean, np.int64(1), "TypeError: size must be True or False, got "),
        (_validators.boolean, "True", "TypeError: size must be True or False, got 'True'"),
    ],
)
def test_numpy_scalars_are_held_to_the_same_rules(validator: _validators.Validator, value: object, words: str) -> None:
    """A NumPy scalar is refused where its number would be."""
    assert refusal(validator, value).startswith(words)


def test_counts_may_be_numpy_scalars() -> None:
    """A count is a whole number of Python's or NumPy's."""
    _validators.count("limit", np.int64(3))
    with pytest.raises(ValueError, match=r"^limit must be a whole number"):
        _validators.count("limit", np.int64(-3))
    with pytest.raises(TypeError, match=r"^limit must be a whole number"):
        _validators.count("limit", np.float64(3))


def test_a_data_uri_is_not_remembered() -> None:
    """Seeing that a data URI is not a link leaves nothing of it in the cache of `urlsplit`, which may hold hundreds."""
    urlsplit.cache_clear()  # type: ignore[attr-defined]
    assert not _validators.is_http_url("data:image/png;base64,AAAA")
    assert _validators.is_http_url("HTTPS://example.com/a.png")
    assert urlsplit.cache_info().currsize == 1  # type: ignore[attr-defined]
