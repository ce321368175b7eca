"""`Picture`, and what the bytes of a picture tell without Pillow."""

import base64
import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from support.raw_server import JPEG, PNG

from piapi_async import Picture
from piapi_async._images import integrity, pillow
from piapi_async.errors import ConfigurationError

KINDS = ("PNG", "JPEG", "WEBP", "GIF")
BOUND = 10**8


def made(kind: str, *, size: tuple[int, int] = (37, 23), mode: str = "RGB", **options: Any) -> bytes:
    """A picture with some structure in it."""
    buffer = io.BytesIO()
    PillowImage.linear_gradient("L").resize(size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A grey PNG of these chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def fault(data: bytes, media_type: str) -> str | None:
    """What is wrong with a picture."""
    return integrity.fault(data, media_type=media_type)


WHOLE = {
    **{kind: made(kind) for kind in (*KINDS, "BMP", "TIFF", "AVIF")},
    "progressive": made("JPEG", progressive=True, size=(200, 200)),
    "lossless": made("WEBP", lossless=True),
    "extended": made("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"),
    "palette": made("PNG", mode="P"),
    "bits": made("PNG", mode="1"),
    "alpha": made("PNG", mode="RGBA"),
    "grey with alpha": made("PNG", mode="LA"),
}
TYPES = {"PNG": "image/png", "progressive": "image/jpeg", "lossless": "image/webp", "extended": "image/webp"}
TYPES |= dict.fromkeys(("palette", "bits", "alpha", "grey with alpha"), "image/png")


def type_of(name: str) -> str:
    """The media type of one of those."""
    return TYPES.get(name, f"image/{name.lower()}")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_pictures_have_no_fault(name: str) -> None:
    """What Pillow writes is whole, and measured as Pillow does; kinds that are not known here have no size."""
    data = WHOLE[name]
    assert fault(data, type_of(name)) is None
    size = None if name in ("BMP", "TIFF", "AVIF") else PillowImage.open(io.BytesIO(data)).size
    assert integrity.dimensions(data) == size
    pillow.verify(io.BytesIO(data), media_type=type_of(name), at_most=BOUND)


@pytest.mark.parametrize("name", [name for name in WHOLE if type_of(name) in integrity.KINDS])
def test_any_truncation_is_seen_without_pillow(name: str) -> None:
    """A PNG, JPEG, WebP or AVIF that lacks its last bytes, however few or many, has a fault."""
    data = WHOLE[name]
    for end in range(len(data)):
        assert fault(data[:end], type_of(name)), end


@pytest.mark.parametrize("name", ["PNG", "palette", "bits", "alpha", "grey with alpha"])
def test_any_damage_to_a_png_is_seen_without_pillow(name: str) -> None:
    """Every byte of a PNG is under a checksum, or part of its form."""
    data = WHOLE[name]
    for place in range(8, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        assert fault(damaged, "image/png"), place


def test_end_of_a_thumbnail_is_no_end() -> None:
    """A JPEG inside a JPEG's header has an end of its own, which is not that of the picture."""
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG
    data = WHOLE["JPEG"][:2] + thumbnail + WHOLE["JPEG"][2:]
    assert fault(data, "image/jpeg") is None
    assert fault(data[:-2], "image/jpeg") == "it ends early"


@pytest.mark.parametrize("gap", [2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_end_is_found_behind_long_scans(gap: int) -> None:
    """The end of a JPEG is found wherever it lies, also across the steps of the search."""
    start = WHOLE["JPEG"].index(b"\xff\xda")
    head = WHOLE["JPEG"][: start + 2 + int.from_bytes(WHOLE["JPEG"][start + 2 : start + 4], "big")]
    assert fault(head + bytes(gap) + b"\xff\xd9", "image/jpeg") is None
    assert fault(head + b"\xff" * gap + b"\xd9", "image/jpeg") is None
    assert fault(head + b"\xff\x00" * gap, "image/jpeg") == "it ends early"


def test_jpeg_of_too_many_parts_is_given_up() -> None:
    """A JPEG that keeps us busy with a hundred thousand segments is no picture."""
    assert fault(WHOLE["JPEG"][:-2] + b"\xff\x01" * 100_000 + b"\xff\xd9", "image/jpeg") == "it ends early"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_what_follows_a_picture_does_no_harm(name: str) -> None:
    """Bytes after the end of a picture are no fault of it."""
    assert fault(WHOLE[name] + bytes(1000), type_of(name)) is None


def test_pixels_are_not_inflated() -> None:
    """What has its checksums is what was sent: the pixels are not inflated, whatever stands there."""
    end = chunk(b"IEND", b"")
    for pixels in (zlib.compress(bytes(5)), b"\x78\x9cgarbage"):
        assert fault(png(2, 2, chunk(b"IDAT", pixels), end), "image/png") is None


def test_what_is_beside_the_pixels_is_no_fault() -> None:
    """Texts, profiles and times of a PNG may be damaged, and may be of any size once inflated."""
    name, *chunks = b"workflow\0\0", chunk(b"IDAT", zlib.compress(bytes(6))), chunk(b"IEND", b"")
    for notes in (chunk(b"tEXt", b"")[:-1] + b"x", chunk(b"zTXt", name + zlib.compress(bytes(3_000_000)))):
        assert fault(png(2, 2, notes, *chunks), "image/png") is None


def test_png_of_too_many_parts_is_given_up() -> None:
    """A PNG that keeps us busy with a hundred thousand chunks is no picture."""
    assert fault(png(1, 1, *[chunk(b"tEXt", b"")] * 100_001, chunk(b"IEND", b"")), "image/png") == "it ends early"


def box(kind: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    """A box as AVIF and HEIC are made of."""
    return struct.pack(">I", 8 + len(content) if size is None else size) + kind + content


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (box(b"ftyp") + box(b"meta") + box(b"mdat", bytes(9)), True),
        (box(b"ftyp") + box(b"mdat") + box(b"meta") + b"anything", True),
        (box(b"ftyp") + box(b"meta") + box(b"mdat", bytes(9), size=0), True),
        (box(b"ftyp") + box(b"meta") + box(b"mdat", struct.pack(">Q", 19) + bytes(3), size=1), True),
        (box(b"ftyp") + box(b"meta") + box(b"mdat", struct.pack(">Q", 20) + bytes(3), size=1), False),
        (box(b"ftyp") + box(b"meta") + box(b"mdat", size=4), False),
        (box(b"ftyp") + box(b"meta"), False),
        (box(b"free") * 100_001, False),
    ],
)
def test_boxes_are_walked(data: bytes, *, whole: bool) -> None:
    """An AVIF or HEIC is whole when its description and its pixels are all there, in any order and of any length."""
    assert fault(data, "image/avif") == fault(data, "image/heic") == (None if whole else "it ends early")


def test_texts_can_be_taken_out_of_a_png() -> None:
    """Nothing but the texts is gone, and what follows the last whole chunk stays."""
    texts = [chunk(kind, b"a\0b") for kind in (b"tEXt", b"zTXt", b"iTXt")]
    rest = [chunk(b"gAMA", bytes(4)), chunk(b"IDAT", zlib.compress(bytes(6))), chunk(b"IEND", b"") + b"tail"]
    assert integrity.without_texts(png(2, 2, texts[0], rest[0], *texts[1:], *rest[1:])) == png(2, 2, *rest)


@pytest.mark.parametrize(
    ("options", "lossy"),
    [
        ({}, True),
        ({"lossless": True}, False),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"}, True),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0", "lossless": True}, False),
        ({"icc_profile": b"odd"}, True),
        ({"save_all": True, "append_images": [PillowImage.new("RGB", (37, 23), "red")]}, True),
        ({"save_all": True, "append_images": [PillowImage.new("RGB", (37, 23), "red")], "lossless": True}, False),
    ],
)
def test_lossy_webp_is_told_from_lossless(options: dict[str, Any], *, lossy: bool) -> None:
    """The kind of a WebP is found behind whatever stands before its pixels, in its first frame too."""
    assert integrity.is_lossy_webp(made("WEBP", **options)) is lossy


def test_webp_without_pixels_is_not_lossy() -> None:
    """A WebP in which no pixels are found, however long it is looked for them, is not called lossy."""
    assert not integrity.is_lossy_webp(b"RIFF\0\0\0\0WEBP")
    assert not integrity.is_lossy_webp(b"RIFF\0\0\0\0WEBP" + b"odd \0\0\0\0" * 100_001)


@given(st.sampled_from(list(WHOLE.values())), st.data())
def test_any_bytes_have_a_size_or_none(data: bytes, drawn: st.DataObject) -> None:
    """Pictures cut and overwritten anywhere: width and height are positive numbers or None, and nothing is raised."""
    place = drawn.draw(st.integers(0, len(data)))
    patch = drawn.draw(st.binary(max_size=12))
    damaged = (data[:place] + patch + data[place + len(patch) :])[: drawn.draw(st.integers(0, len(data)))]
    check_header(damaged)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]))
@example(b"RIFF1234WEBPVP8 " + bytes(14), b"")
@example(b"RIFF1234WEBPVP8L" + bytes(14), b"")
@example(b"RIFF1234WEBPVP8X" + bytes(14), b"")
@example(b"RIFF1234WEBPnope" + bytes(14), b"")
@example(b"RIFF1234WEBPVP8X", b"")
@example(b"\xc0\x00", b"\xff\xd8\xff")
def test_any_header_has_a_size_or_none(rest: bytes, signature: bytes) -> None:
    """Any bytes after any signature: a size or None."""
    check_header(signature + rest)


def check_header(data: bytes) -> None:
    """Look at all that a picture tells of itself."""
    picture = Picture(data)
    assert (picture.width is None) is (picture.height is None)
    assert picture.width is None or (picture.width > 0 and picture.height is not None and picture.height > 0)
    assert picture.size_bytes == len(data)
    for media_type in ("image/png", "image/jpeg", "image/webp", "image/gif"):
        found = fault(data, media_type)
        assert found is None or isinstance(found, str)
    assert len(repr(picture)) < 200


def test_picture_tells_what_it_is() -> None:
    """Kind, ending and size come from the bytes; the repr is short and shows no data."""
    picture = Picture(WHOLE["WEBP"], url="https://example.com/a")
    assert (picture.media_type, picture.suffix, picture.width, picture.height) == ("image/webp", ".webp", 37, 23)
    words = f"<Picture image/webp 37x23 {len(WHOLE['WEBP'])} bytes 'https://example.com/a'>"
    assert repr(picture) == words
    unknown = Picture(b"abc")
    assert (unknown.media_type, unknown.suffix, unknown.width) == ("application/octet-stream", "", None)
    assert repr(unknown) == "<Picture application/octet-stream 3 bytes>"
    inline = Picture(PNG, media_type="image/png", url="data:image/png;base64," + "A" * 10**6)
    assert len(repr(inline)) < 120


@pytest.mark.parametrize("fields", [{"data": "abc"}, {"data": PNG, "url": 1}, {"data": PNG, "media_type": None}])
def test_wrong_types_are_refused(fields: dict[str, Any]) -> None:
    """A picture is made of bytes and texts."""
    with pytest.raises(TypeError, match=r"^(data|url|media_type) must be "):
        Picture(**fields)


def test_notebooks_show_the_bytes() -> None:
    """A notebook's page holds the picture itself; what is no picture is not made one."""
    data = PNG
    shown = Picture(data)._repr_html_()
    assert f"data:image/png;base64,{base64.b64encode(data).decode()}" in shown
    assert "<img" not in Picture(b"abc")._repr_html_()


def test_pictures_are_equal_by_their_bytes() -> None:
    """Where a picture came from makes no difference; it is hashable, frozen, and can be pickled."""
    one, other = Picture(PNG, url="https://example.com/a"), Picture(bytes(bytearray(PNG)), media_type="image/x")
    assert one == other
    assert len({one, other, Picture(JPEG)}) == 2
    twin = pickle.loads(pickle.dumps(one))
    assert (twin, twin.url, twin.media_type) == (one, one.url, one.media_type)
    with pytest.raises(AttributeError):
        one.data = b""  # type: ignore[misc]


def test_picture_is_saved_whole(tmp_path: Path) -> None:
    """A picture is written under the name given, its directory is made, and a file is replaced only when told so."""
    path = tmp_path / "deep" / "a.png"
    assert Picture(PNG).save(path) == path
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        Picture(JPEG).save(path)
    assert path.read_bytes() == PNG
    assert Picture(JPEG).save(str(path), overwrite=True) == path
    assert path.read_bytes() == JPEG
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    """Where a file may not grow, the error names it, and neither a file nor a part of one is left."""
    code = f"""
import resource, signal
from piapi_async import Picture
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Picture(bytes(100_000)).save({str(tmp_path / "a.png")!r})
except OSError as error:
    print(error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("refusal", [PermissionError(1, "no links here"), NotImplementedError()])
def test_picture_is_saved_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception, *, taken: bool
) -> None:
    """Without hard links the name is reserved instead: still nobody's file is replaced."""

    def link(*_: object) -> None:
        raise refusal

    monkeypatch.setattr("os.link", link)
    path = tmp_path / "a.png"
    if taken:
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            Picture(PNG).save(path)
    else:
        Picture(PNG).save(path)
    assert path.read_bytes() == (b"mine" if taken else PNG)
    assert list(tmp_path.iterdir()) == [path]


def test_reserved_name_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last step fails on such a disk, the reservation goes too."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(PermissionError):
        Picture(PNG).save(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_picture_becomes_a_pillow_image() -> None:
    """`to_pil` gives the decoded image, or Pillow's error for what is broken."""
    image = Picture(WHOLE["JPEG"]).to_pil()
    assert (image.size, image.mode) == ((37, 23), "RGB")
    with pytest.raises(OSError, match=r"(?i)truncated"):
        Picture(WHOLE["JPEG"][:-200]).to_pil()


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow is missing, one sentence names the extra, and nothing is verified by decoding."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigurationError, match=r"^Picture.to_pil\(\) needs Pillow: pip install pillow$"):
        Picture(PNG).to_pil()
    pillow.verify(io.BytesIO(b"no picture"), media_type="image/gif", at_most=BOUND)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_pillow_sees_what_is_broken(kind: str) -> None:
    """Half a picture, and one of another kind, cannot be decoded; the message says so."""
    media_type, data = f"image/{kind.lower()}", made(kind, size=(300, 200))
    for broken in (data[: len(data) // 2], PNG):
        with pytest.raises(ValueError, match=r"^it cannot be decoded: "):
            verify(broken, media_type)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_pillow_sees_pixels_that_are_broken(kind: str) -> None:
    """Of the kinds that are seen to be whole without Pillow, too, it finds out what the pixels are worth."""
    whole = made(kind, size=(300, 200))
    start = whole.index({"JPEG": b"\xff\xda", "WEBP": b"VP8 ", "AVIF": b"mdat"}[kind]) + 4
    broken = whole[: start + 12] + bytes(len(whole) - start - 14) + whole[-2:]
    if kind == "WEBP":
        broken = whole[: start + 14] + b"\xff" * (len(whole) - start - 14)
    if kind == "JPEG":
        broken = whole[: whole.index(b"\xff\xdb")] + whole[whole.index(b"\xff\xc0") :]
    assert fault(broken, f"image/{kind.lower()}") is None
    with pytest.raises(ValueError, match=r"^it cannot be decoded: "):
        verify(broken, f"image/{kind.lower()}")


def test_pillow_is_no_judge_of_what_is_beside_the_pixels() -> None:
    """A JPEG whose colour profile is broken in a way that keeps Pillow from opening it is whole all the same."""
    profile = b"\xff\xe2" + struct.pack(">H", 14) + b"ICC_PROFILE\0"
    data = WHOLE["JPEG"][:2] + profile + WHOLE["JPEG"][2:]
    with pytest.raises(OSError, match="cannot identify"):
        PillowImage.open(io.BytesIO(data))
    assert fault(data, "image/jpeg") is None
    verify(data, "image/jpeg")


@pytest.mark.parametrize(("kind", "each"), [("WEBP", 16), ("GIF", 4), ("AVIF", 16), ("JPEG", 6)])
def test_costly_pictures_are_not_decoded(kind: str, each: int) -> None:
    """What would take more memory than it may is not decoded: it stays, although its pixels would be found broken."""
    data = made(kind, size=(300, 200), **({"progressive": True} if kind == "JPEG" else {}))
    keep = data.index(b"VP8 ") + 18 if kind == "WEBP" else len(data) * 2 // 3
    broken = data[:keep] + b"\xff" * (len(data) - keep if kind == "WEBP" else 0)
    verify(broken, f"image/{kind.lower()}", at_most=300 * 200 * each - 1)
    with pytest.raises(ValueError, match=r"^it cannot be decoded: "):
        verify(broken, f"image/{kind.lower()}", at_most=300 * 200 * (each + 1))


def test_heic_is_kept_where_nobody_can_decode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pillow-heif a finished HEIC is not decoded, and not lost."""
    PillowImage.init()
    monkeypatch.delitem(PillowImage.OPEN, "HEIF", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    verify(b"\0\0\0\x0cftypheic", "image/heic")


def verify(data: bytes, media_type: str, *, at_most: int = BOUND) -> None:
    """Decode a picture."""
    pillow.verify(io.BytesIO(data), media_type=media_type, at_most=at_most)


def test_pillow_without_a_decoder_does_not_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pillow that was built without a kind of picture is no reason to lose one that is paid for."""
    monkeypatch.setattr("PIL.features.check", lambda _feature: False)
    verify(b"a picture that it cannot read", "image/jp2")
