"""Finds the videos in a render's output, in the shapes that services give it.

Pages promise `output.video`, `output.videos` and `outputs: [url]`. Clients of both providers also
expect `output: url`, `output.url`, `video_url`, `outputs: [{"video": ...}]`, and the outputs of
each node: `outputs.{node}.videos[].url`. Under any other name, a URL must end like a video's.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

_MAX_DEPTH = 8
# In order of preference, without `_` and capitals.
_NAMES = ("video", "videos", "videourl", "videourls", "output", "outputs", "url")
_OTHER_MEDIA = re.compile(r"image|audio|sound|voice|cover|thumb|poster|preview|mask|gif")
_URL = re.compile(r"\s*https?://", re.IGNORECASE)
_VIDEO_ENDINGS = (".mp4", ".mov", ".webm")
_OTHER_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif"),
    *(".mp3", ".wav", ".json", ".txt", ".zip"),
)


def video_urls(output: object) -> tuple[str, ...]:
    """The URLs that can be of a video, the most likely one first.

    >>> video_urls([{"cover": {"url": "https://a/1"}}, {"node": {"videos": [{"url": "https://a/2"}]}}])
    ('https://a/2',)
    """
    return published_video_urls(output) or _by_rank(output)


def published_video_urls(output: object) -> tuple[str, ...]:
    """Only those under a name that pages and clients expect at the top."""
    if not isinstance(output, dict):
        return _by_rank(output)
    return _by_rank({name: value for name, value in output.items() if _plain(name) in _NAMES})


def _by_rank(output: object) -> tuple[str, ...]:
    ranked = [(_rank(url, is_named=is_named), url) for url, is_named in _urls(output)]
    return tuple(url for rank in range(3) for found, url in ranked if found == rank)


def _plain(name: object) -> str:
    return str(name).lower().replace("_", "")


def _rank(url: str, *, is_named: bool) -> int | None:
    """0 is the most likely; None for no video."""
    try:
        path = urlsplit(url).path.lower()
    except ValueError:
        path = ""  # the download decides
    if path.endswith(_VIDEO_ENDINGS):
        return 0 if is_named else 2
    return 1 if is_named and not path.endswith(_OTHER_ENDINGS) else None


def _urls(
    found: object, *, is_named: bool = True, is_other: bool = False, depth: int = 0
) -> Iterator[tuple[str, bool]]:
    """Each URL, and whether it is a video's by its name. In other media no name counts."""
    if isinstance(found, str) and _URL.match(found):
        yield found.strip(), is_named
    if depth == _MAX_DEPTH:
        return
    if isinstance(found, list):
        for one in found:
            yield from _urls(one, is_named=is_named, is_other=is_other, depth=depth + 1)
    if isinstance(found, dict):
        fields = {_plain(key): value for key, value in found.items()}
        for name in (*_NAMES, *(name for name in fields if name not in _NAMES)):
            if "input" not in name:
                in_other = is_other or _OTHER_MEDIA.search(name) is not None
                named = name in _NAMES and not in_other
                value = fields.get(name)
                yield from _urls(value, is_named=named, is_other=in_other, depth=depth + 1)
