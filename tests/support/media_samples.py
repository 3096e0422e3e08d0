"""Files as people have them, good and bad, made in memory. The real ones lie in `samples/`."""

import math
import struct
import zlib
from array import array
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import pillow_heif
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"
PORTRAIT = (SAMPLES / "portrait.png").read_bytes()
SPEECH_MP3 = (SAMPLES / "speech.mp3").read_bytes()
SPEECH_WAV = (SAMPLES / "speech.wav").read_bytes()


# Pictures


@cache
def picture(
    image_format: str, width: int = 512, height: int = 512, mode: str = "RGB", **options: object
) -> bytes:
    """A real file of any format that Pillow writes: noise of four levels, so that decoding works
    through something, but not through much."""
    pixels = Image.effect_noise((min(width, 512), min(height, 512)), 80)
    image = pixels.point(lambda level: level // 64 * 64).resize((width, height)).convert(mode)
    return _saved(image, image_format, **options)


@cache
def animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (512, 512), colour) for colour in ("red", "green", "blue")]
    return _saved(frames[0], image_format, save_all=True, append_images=frames[1:])


@cache
def turned_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", 640, 480, exif=exif.tobytes())


_GPS_IFD, _ORIENTATION = 0x8825, 0x0112
GPS_PLACE = {1: "N", 2: (29.0, 33.0, 7.0), 3: "W", 4: (95.0, 5.0, 17.0)}


def _exif_with_place(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    exif.get_ifd(_GPS_IFD).update(GPS_PLACE)
    return exif.tobytes()


@cache
def photo_with_place(image_format: str = "JPEG", width: int = 640, height: int = 480) -> bytes:
    """A photo that lies on its side and says where it was taken."""
    return picture(image_format, width, height, exif=_exif_with_place(6))


@cache
def heic(width: int = 640, height: int = 480) -> bytes:
    """A photo as iPhones take them, with a place in it."""
    file = BytesIO()
    pillow_heif.from_bytes("RGB", (width, height), bytes(width * height * 3)).save(
        file, exif=_exif_with_place(), quality=50
    )
    return file.getvalue()


def motion_photo() -> bytes:
    """A JPEG with a video behind its end, as some phones make them."""
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x GCamera:MotionPhoto='1'/>"
    return with_segment(picture("JPEG"), 0xE1, xmp) + encoded("mp4", "aac")


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body + jpeg[2:]


def with_chunk(png: bytes, name: bytes, body: bytes, *, last: bool = False) -> bytes:
    """A PNG with one more chunk, behind its header or before its end."""
    place = len(png) - 12 if last else 33
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:place] + chunk + png[place:]


def bomb_png(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that claims to hold an enormous picture."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9999))), (b"IEND", b""))
    )


def bomb_webp(side: int = 16_383) -> bytes:
    """A WebP whose canvas would take a gigabyte, before Pillow tells its size."""
    sample = bytearray(picture("WEBP", lossless=True))
    struct.pack_into("<I", sample, 21, (side - 1) | (side - 1) << 14)
    return bytes(sample)


def bomb_jpeg(side: int = 65_000) -> bytes:
    """A JPEG with the sides in its frame header overwritten."""
    sample = bytearray(picture("JPEG"))
    struct.pack_into(">HH", sample, sample.index(b"\xff\xc0") + 5, side, side)
    return bytes(sample)


def spoiled_png() -> bytes:
    """The portrait with a few bytes changed in the middle of its pixels."""
    middle = len(PORTRAIT) // 2
    return PORTRAIT[:middle] + b"spoiled" + PORTRAIT[middle + 7 :]


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


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


def with_byte_rate(wav: bytes, bytes_per_second: int) -> bytes:
    """What recorders write into a WAV's header, and older versions of FFmpeg do not for ADPCM."""
    return wav[:28] + struct.pack("<I", bytes_per_second) + wav[32:]


@cache
def encoded(
    container: str,
    codec: str,
    seconds: float = 2,
    *,
    rate: int = 48_000,
    tags: str = "",
    **options: str,
) -> bytes:
    """A tone as any recording that PyAV can make: ("mp3", "libmp3lame"), ("ogg", "libopus")...

    `tags` is `name=value`, for one tag.
    """
    samples = round(seconds * rate)
    tone = array("h", (round(8000 * math.sin(n * math.tau * 440 / rate)) for n in range(samples)))
    file = BytesIO()
    with av.open(file, "w", format=container, container_options=options) as made:
        if tags:
            name, value = tags.split("=")
            made.metadata[name] = value
        stream = made.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
        frame.planes[0].update(tone.tobytes())
        frame.sample_rate = rate
        fitting = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        for part in [*fitting.resample(frame), None]:
            made.mux(stream.encode(part))
    return file.getvalue()


def mp3(seconds: float = 2, **options: str) -> bytes:
    return encoded("mp3", "libmp3lame", seconds, **options)


def mp3_without_header(seconds: float = 2) -> bytes:
    """Frames and nothing else, as speech services send them."""
    return mp3(seconds, write_xing="0", id3v2_version="0")


def mp3_of_rising_bitrate(frames: int) -> bytes:
    """Silence without a header, in frames of 32 and then of 320 kbit/s: a guess from the first
    frame would take it for much longer than it is. A frame lasts 1152 / 48000 s."""
    low, high = (
        b"\xff\xfb" + bytes([index << 4 | 4, 0xC4]) + bytes(144_000 * kbit // 48_000 - 4)
        for index, kbit in ((1, 32), (14, 320))
    )
    return low * (frames // 2) + high * (frames - frames // 2)


def id3_tag(size_bytes: int = 100) -> bytes:
    return (
        b"ID3\x04\x00\x00" + bytes([0, 0, size_bytes >> 7, size_bytes & 0x7F]) + bytes(size_bytes)
    )


@cache
def video(seconds: float = 2, container: str = "mp4", *, sound: bool = True) -> bytes:
    """A short film, with or without sound."""
    file = BytesIO()
    with av.open(file, "w", format=container) as made:
        pictures = made.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height = 64, 64
        voice = made.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            made.mux(pictures.encode(frame))
        made.mux(pictures.encode(None))
        if voice:
            samples = round(seconds * 48_000)
            silence = av.AudioFrame(format="fltp", layout="mono", samples=samples)
            silence.planes[0].update(bytes(4 * samples))
            silence.sample_rate = 48_000
            made.mux(voice.encode(silence))
            made.mux(voice.encode(None))
    return file.getvalue()


@cache
def tagged_mp3(seconds: float = 2) -> bytes:
    """An MP3 that says who speaks."""
    return encoded("mp3", "libmp3lame", seconds, tags="artist=Anna")


def with_riff_chunk(riff: bytes, name: bytes, body: bytes) -> bytes:
    """A WAV or WebP with one more chunk at its end."""
    whole = riff[8:] + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def iso_media(brand: bytes) -> bytes:
    """The beginning of a HEIC, an M4A, a MOV...: what tells them is the brand."""
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200)


# Neither

TEXT = "Dear Anna, this is not a picture — é, ü and 🎤 notwithstanding.\n".encode() * 40
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
NOISE = bytes((i * i * 31 + i * 7 + 3) % 251 for i in range(5000))
