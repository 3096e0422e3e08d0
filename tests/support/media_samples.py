"""Files as people have them, good and bad, made in memory. The real ones lie in `samples/`.

Copies can be recognised: pictures by four colours, which show how one was turned and what became of
its colours; and no copy may have the secret that is in all metadata.
"""

import math
import struct
import zlib
from array import array
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import pillow_heif
from PIL import Image, ImageCms, PngImagePlugin

SAMPLES = Path(__file__).parents[2] / "samples"
PORTRAIT = (SAMPLES / "portrait.png").read_bytes()
SPEECH_MP3 = (SAMPLES / "speech.mp3").read_bytes()
SPEECH_WAV = (SAMPLES / "speech.wav").read_bytes()
SECRET = "Villa Anna"
COLOURS = {  # of the four quarters
    (0, 0): (220, 30, 30),
    (1, 0): (30, 180, 60),
    (0, 1): (40, 60, 200),
    (1, 1): (230, 200, 40),
}

_DESCRIPTION, _ORIENTATION, _GPS = 0x010E, 0x0112, 0x8825


# Pictures


@cache
def picture(
    image_format: str, width: int = 512, height: int = 512, mode: str = "RGB", **options: object
) -> bytes:
    """A real file of any format that Pillow writes: noise of four levels, so that decoding works
    through something, but not through much."""
    pixels = Image.effect_noise((min(width, 512), min(height, 512)), 80)
    image = pixels.point(lambda level: level // 64 * 64).resize((width, height)).convert(mode)
    return saved(image, image_format, **options)


def scene(width: int = 640, height: int = 480) -> Image.Image:
    """A picture of four colours."""
    small = Image.new("RGB", (2, 2))
    for place, colour in COLOURS.items():
        small.putpixel(place, colour)
    return small.resize((width, height), Image.Resampling.NEAREST)


def exif(orientation: int = 1) -> bytes:
    """What a phone writes into its photos."""
    tags = Image.Exif()
    tags[_DESCRIPTION] = SECRET
    tags[_ORIENTATION] = orientation
    tags.get_ifd(_GPS).update({1: "N", 2: (29.0, 33.0, 7.0), 3: "W", 4: (95.0, 5.0, 17.0)})
    return tags.tobytes()


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def lying(image: Image.Image, orientation: int) -> Image.Image:
    """As a camera stores what EXIF's orientation will turn upright again."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


@cache
def photo(orientation: int = 1, width: int = 640, height: int = 480) -> bytes:
    """A JPEG from a phone; the size is that of the picture when it is upright."""
    image = lying(scene(width, height), orientation)
    return saved(image, "JPEG", quality=90, exif=exif(orientation), comment=SECRET.encode())


@cache
def heic(orientation: int = 1, width: int = 640, height: int = 480, **options: object) -> bytes:
    """A HEIC from a phone; the size is that of the picture when it is upright."""
    file = BytesIO()
    image = pillow_heif.from_pillow(lying(scene(width, height), orientation))
    image.save(file, exif=exif(orientation), quality=70, **options)
    return file.getvalue()


@cache
def avif(width: int = 640, height: int = 480) -> bytes:
    return saved(scene(width, height), "AVIF", quality=80, speed=10, exif=exif())


@cache
def tiff(mode: str = "RGB", width: int = 640, height: int = 480, **options: object) -> bytes:
    tags = {_DESCRIPTION: SECRET}
    return saved(scene(width, height).convert(mode), "TIFF", tiffinfo=tags, **options)


@cache
def gif(frames: int = 3) -> bytes:
    later = [Image.new("RGB", (640, 480), "black")] * (frames - 1)
    return saved(scene(), "GIF", save_all=True, append_images=later, comment=SECRET.encode())


@cache
def tagged_png(mode: str = "RGB") -> bytes:
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", SECRET)
    return saved(scene().convert(mode), "PNG", pnginfo=words, exif=exif())


@cache
def see_through_png(image_format: str = "PNG") -> bytes:
    """The four colours with a hole in the middle."""
    image = scene().convert("RGBA")
    image.paste((0, 0, 0, 0), (280, 200, 360, 280))
    return saved(image, image_format, **({"lossless": True} if image_format == "WEBP" else {}))


@cache
def grey_16_bit(image_format: str) -> bytes:
    """From black on the left to white on the right, in 16 bits."""
    row = array("H", (round(65535 * x / 639) for x in range(640)))
    image = Image.frombytes("I;16", (640, 480), row.tobytes() * 480)
    return saved(image, image_format)


@cache
def colour_16_bit_png() -> bytes:
    """The four colours in 16 bits, which Pillow does not write."""
    content = scene().tobytes()
    rows = (content[at : at + 3 * 640] for at in range(0, len(content), 3 * 640))
    wide = b"".join(b"\0" + bytes(part for value in row for part in (value, value)) for row in rows)
    return _png(640, 480, 16, zlib.compress(wide))


def _png(width: int, height: int, bits: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body + jpeg[2:]


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk, behind its header."""
    return png[:33] + _chunk(name, body) + png[33:]


@cache
def tagged_webp(**options: object) -> bytes:
    return saved(scene(), "WEBP", exif=exif(), xmp=f"<x>{SECRET}</x>".encode(), **options)


@cache
def animated(image_format: str) -> bytes:
    later = [Image.new("RGB", (640, 480), "black")]
    return saved(scene(), image_format, save_all=True, append_images=later)


@cache
def two_pictures_in_one() -> bytes:
    """An MPO: what many phones call a JPEG."""
    return saved(scene(), "MPO", save_all=True, append_images=[scene(320, 240)])


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _profile(
    kind: bytes, space: bytes, through: bytes, name: str, tags: dict[bytes, bytes]
) -> bytes:
    """https://www.color.org/icc32.pdf"""
    words = name.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        **tags,
    }
    directory, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        directory += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    whole = struct.pack(">I", len(tags)) + directory + body
    header = struct.pack(">I4sI4s4s4s", 128 + len(whole), b"none", 0x02100000, kind, space, through)
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.82491)
    return header.ljust(128, b"\0") + whole


def rgb_profile(name: str, gamma: float, *primaries: tuple[float, float, float]) -> bytes:
    """A profile of colours that are mixed of these of red, green and blue."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    xyz = (*primaries, (0.9642, 1.0, 0.82491))
    tags = {
        tag: b"XYZ " + bytes(4) + _fixed(*values)
        for tag, values in zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), xyz, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, tags)


DISPLAY_P3 = rgb_profile(
    "Display P3 for tests",
    2.2,
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
"""Of wider colours than sRGB: what phones have."""


def named_srgb(gamma: float) -> bytes:
    """A profile that calls itself sRGB, and has its primaries, but not its levels."""
    return rgb_profile(
        "sRGB IEC61966-2.1",
        gamma,
        (0.43607, 0.22249, 0.01392),
        (0.38515, 0.71687, 0.09708),
        (0.14307, 0.06061, 0.71410),
    )


def in_colours_of(profile: bytes, image: Image.Image) -> Image.Image:
    """The same colours in the numbers of a profile."""
    space = ImageCms.ImageCmsProfile(BytesIO(profile))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), space, "RGB", "RGB")
    return transform.apply(image)


@cache
def wide_photo() -> bytes:
    """The four colours in the numbers of Display P3, lying on its side."""
    image = lying(in_colours_of(DISPLAY_P3, scene()), 6)
    return saved(image, "JPEG", icc_profile=DISPLAY_P3, exif=exif(6))


@cache
def cmyk_profile() -> bytes:
    """A profile of inks: the corners of the colour cube as a simple printer would print them."""
    corners = [
        tuple(round(255 * (1 - ink) * (1 - black)) for ink in (cyan, magenta, yellow))
        for cyan in (0, 1)
        for magenta in (0, 1)
        for yellow in (0, 1)
        for black in (0, 1)
    ]
    rgb = Image.new("RGB", (16, 1))
    for place, corner in enumerate(corners):
        rgb.putpixel((place, 0), corner)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = to_lab.apply(rgb).tobytes()
    grid = bytes(value if place % 3 == 0 else value ^ 0x80 for place, value in enumerate(lab))
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
        + bytes(range(256)) * 4 + grid + bytes(range(256)) * 3
    )  # fmt: skip
    return _profile(b"prtr", b"CMYK", b"Lab ", "Inks for tests", {b"A2B0": table})


@cache
def cmyk_photo(*, profile: bool) -> bytes:
    """The four colours as they are printed."""
    options = {"icc_profile": cmyk_profile()} if profile else {}
    return saved(scene().convert("CMYK"), "JPEG", quality=95, **options)


# Pictures that claim much


def bomb_png() -> bytes:
    """A PNG of a few bytes that claims to hold an enormous picture."""
    return _png(50_000, 50_000, 8, zlib.compress(bytes(9999)))


def bomb_webp() -> bytes:
    """A WebP whose canvas would take a gigabyte, before Pillow knows its size."""
    sides = 16_382 | 16_382 << 14
    return claiming(picture("WEBP", lossless=True), b"VP8L", 9, "<I", sides)


def bomb_jpeg(side: int = 65_000) -> bytes:
    """A JPEG with the sides in its frame header overwritten."""
    return claiming(picture("JPEG"), b"\xff\xc0", 5, ">HH", side, side)


@cache
def endless_jpeg(side: int = 9000, scans: int = 20_000) -> bytes:
    """A progressive JPEG of few bytes that goes over its pixels again and again."""
    small = saved(Image.new("L", (64, 64)), "JPEG", progressive=True)
    large = claiming(small, b"\xff\xc2", 5, ">HH", side, side)
    return large[:-2] + large[large.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


@cache
def flat_png(width: int, height: int) -> bytes:
    """A PNG of one colour, made without ever holding its pixels."""
    squeeze, row = zlib.compressobj(1), b"\0" + b"\x60\x90\xc0" * width
    parts = [squeeze.compress(row) for _ in range(height)]
    return _png(width, height, 8, b"".join([*parts, squeeze.flush()]))


def claiming(content: bytes, mark: bytes, offset: int, layout: str, *values: int) -> bytes:
    """A file with numbers overwritten behind a mark."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, changed.index(mark) + offset, *values)
    return bytes(changed)


@cache
def million_sample_m4a(samples: int = 30_000_000) -> bytes:
    """An M4A of a few kilobytes that says it holds millions of samples: an index of a gigabyte."""
    content = tone("ipod", "aac", 2)
    content = claiming(content, b"stsz", 8, ">II", 1, samples)
    content = claiming(content, b"stsc", 8, ">IIII", 1, 1, samples, 1)
    return claiming(content, b"stts", 8, ">III", 1, samples, 1024)


# Recordings


def wav(
    seconds: float = 2,
    *,
    rate: int = 8000,
    channels: int = 1,
    bits: int = 16,
    codec: int = 1,
    extensible: bool = False,
    data_bytes: int | None = None,
    riff_bytes: int | None = None,
    before_data: bytes = b"",
) -> bytes:
    """A WAV of a tone; the sizes that its header states can be made to lie."""
    frame_bytes = channels * bits // 8
    sound = bytes(range(256)) * (int(seconds * rate) * frame_bytes // 256 + 1)
    sound = sound[: round(seconds * rate) * frame_bytes]
    layout = (channels, rate, rate * frame_bytes, frame_bytes, bits)
    fmt = struct.pack("<HHIIHH", 0xFFFE if extensible else codec, *layout)
    if extensible:
        fmt += struct.pack("<HHIH", 22, bits, 0, codec) + bytes.fromhex(
            "000000001000800000aa00389b71"
        )
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + before_data
    stated = len(sound) if data_bytes is None else data_bytes
    body = b"WAVE" + chunks + b"data" + struct.pack("<I", stated) + sound
    return b"RIFF" + struct.pack("<I", len(body) if riff_bytes is None else riff_bytes) + body


@cache
def tone(
    container: str,
    codec: str,
    seconds: float = 4,
    *,
    rate: int = 48_000,
    layout: str = "stereo",
    bit_rate: int | None = None,
    **options: str,
) -> bytes:
    """A tone of 440 Hz by someone who signs it: ("ipod", "aac"), ("webm", "libopus")..."""
    file = BytesIO()
    with av.open(file, "w", format=container, container_options=options) as made:
        made.metadata["artist"] = SECRET
        stream = made.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        made.mux(encoded_tone(stream, seconds))
    return file.getvalue()


def encoded_tone(
    stream: av.AudioStream, seconds: float, loudness: int = 9000
) -> "list[av.Packet[av.AudioStream]]":
    packets: list[av.Packet[av.AudioStream]] = []
    rate, at = stream.rate, 0
    turn = math.tau * 440 / rate
    second = array("h", (round(loudness * math.sin(n * turn)) for n in range(rate)))
    wave = second.tobytes() * math.ceil(seconds)
    while at < round(seconds * rate):
        samples = min(4096, round(seconds * rate) - at)
        frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
        part = wave[2 * at : 2 * (at + samples)]
        frame.planes[0].update(part + bytes(frame.planes[0].buffer_size - len(part)))
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        packets += stream.encode(frame)
        at += samples
    return packets + stream.encode(None)


@cache
def film(container: str = "mp4", seconds: int = 4, loudness: int | None = 9000) -> bytes:
    """A video with a voice, with silence (0), or without sound."""
    file = BytesIO()
    with av.open(file, "w", format=container) as made:
        pictures = made.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height = 64, 64
        has_sound = loudness is not None
        voice = made.add_stream("aac", rate=48_000, layout="stereo") if has_sound else None
        for number in range(10 * seconds):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            made.mux(pictures.encode(frame))
        made.mux(pictures.encode(None))
        if voice:
            made.mux(encoded_tone(voice, seconds, loudness or 0))
    return file.getvalue()


def mp3(seconds: float = 4, **options: str) -> bytes:
    """Frames and nothing else, as speech services send them, unless asked for more."""
    nothing_else = {"write_xing": "0", "id3v2_version": "0"}
    return tone("mp3", "libmp3lame", seconds, layout="mono", **(nothing_else | options))


def muxed(
    content: bytes, container: str, keeps: Callable[[int], bool] = lambda number: True
) -> bytes:
    """The same packets in another container, or not all of them."""
    file = BytesIO()
    with av.open(BytesIO(content), "r") as source, av.open(file, "w", format=container) as made:
        stream = made.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.size and keeps(number):
                packet.stream = stream
                made.mux(packet)
    return file.getvalue()


def id3_tag(size_bytes: int = 100) -> bytes:
    return (
        b"ID3\x04\x00\x00" + bytes([0, 0, size_bytes >> 7, size_bytes & 0x7F]) + bytes(size_bytes)
    )


def with_riff_chunk(riff: bytes, name: bytes, body: bytes) -> bytes:
    """A WAV or WebP with one more chunk at its end."""
    whole = riff[8:] + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def iso_media(brand: bytes) -> bytes:
    """The beginning of a HEIC, an M4A, a MOV...: what tells them is the brand."""
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200)


class Heard(NamedTuple):
    """What a recording is when it is decoded."""

    format: str
    rate: int
    channels: int
    seconds: float


def heard(content: bytes) -> Heard:
    with av.open(BytesIO(content), "r") as made:
        stream = made.streams.audio[0]
        samples = 0
        for frame in made.decode(stream):
            samples += frame.samples
        return Heard(made.format.name, stream.rate, stream.channels, samples / stream.rate)


# Neither

TEXT = "Dear Anna, this is not a picture — é, ü and 🎤 notwithstanding.\n".encode() * 40
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
NOISE = bytes((i * i * 31 + i * 7 + 3) % 251 for i in range(5000))
