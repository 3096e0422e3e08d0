"""What a phone makes: a photo with a place in it, and a voice memo."""

import io
from pathlib import Path

import av
import pillow_heif
from PIL import Image

from local.embedded import PROJECT
from tests.support.media_samples import exif

PORTRAIT = PROJECT / "samples/portrait.png"
SPEECH = PROJECT / "samples/speech.wav"


def heic_photo(folder: Path) -> bytes:
    """A HEIC of 1024 x 1024 that lies on its side and says where it was taken."""
    del folder
    image = Image.open(PORTRAIT).convert("RGB").resize((1024, 1024)).rotate(90)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, exif=exif(6), quality=80)
    return buffer.getvalue()


def m4a_memo(folder: Path) -> bytes:
    """The sample's speech as AAC in an M4A that names who recorded it."""
    path = folder / "memo.m4a"
    with av.open(str(SPEECH)) as source, av.open(str(path), "w", format="ipod") as target:
        target.metadata["artist"] = "Somebody"
        stream = target.add_stream("aac", rate=44_100)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=44_100)
        for frame in source.decode(audio=0):
            for resampled in resampler.resample(frame):
                target.mux(stream.encode(resampled))
        target.mux(stream.encode(None))
    return path.read_bytes()
