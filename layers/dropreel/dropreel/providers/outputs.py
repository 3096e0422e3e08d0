"""Finds the videos in a render's output, in the shapes that services give it.

Pages promise `output.video`, `output.videos` and `outputs: [url]`. Clients of both providers also
expect `output: url`, `output.url`, `video_url`, `outputs: [{"video": ...}]`, and the outputs of
each node: `outputs.{node}.videos[].url`.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

_MAX_DEPTH = 8
# In order of preference, without `_` and capitals.
_NAMES = ("video", "videos", "videourl", "videourls", "output", "outputs", "url")
_OTHER_MEDIA = re.compile(r"image|audio|sound|voice|cover|thumb|poster|preview|mask|gif|input")
_OTHER_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif"),
    *(".mp3", ".wav", ".json", ".txt", ".zip"),
)


def video_urls(output: object) -> tuple[str, ...]:
    """The URLs that can be of a video, the most likely one first.

    >>> video_urls([{"cover": {"url": "https://a/1"}}, {"node": {"videos": [{"url": "https://a/2"}]}}])
    ('https://a/2',)
    """
    return tuple(filter(_may_be_video, _urls(output, is_named=True)))


def _urls(found: object, *, is_named: bool, depth: int = 0) -> Iterator[str]:
    """`is_named`: a text here is an output by its name, and not any text beside one."""
    if isinstance(found, str) and is_named and "://" in found:
        yield found.strip()
    if depth == _MAX_DEPTH:
        return
    if isinstance(found, list):
        for one in found:
            yield from _urls(one, is_named=is_named, depth=depth + 1)
    if isinstance(found, dict):
        fields = {str(key).lower().replace("_", ""): value for key, value in found.items()}
        for name in _NAMES:
            yield from _urls(fields.get(name), is_named=True, depth=depth + 1)
        for name, value in fields.items():
            if name not in _NAMES and not _OTHER_MEDIA.search(name):
                yield from _urls(value, is_named=False, depth=depth + 1)


def _may_be_video(url: str) -> bool:
    try:
        return not urlsplit(url).path.lower().endswith(_OTHER_ENDINGS)
    except ValueError:
        return True  # the download decides
