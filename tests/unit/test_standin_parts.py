"""The parts of the stand-ins that need no HTTP."""

import asyncio
from pathlib import Path

import pytest
from pydantic import JsonValue

from local.standin import film
from local.standin.faults import merge_patch
from local.standin.film import Script, Studio, frame_size
from local.standin.inputs import path_of

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize(
    ("picture", "short_side_pixels", "size"),
    [
        ((512, 512), 480, (480, 480)),
        ((1_080, 1_920), 480, (480, 854)),
        ((1_920, 1_080), 720, (1_280, 720)),
        ((401, 403), 720, (720, 724)),
        ((401, 6_999), 480, (110, 1_920)),
    ],
)
def test_frame_keeps_the_pictures_shape_in_even_pixels(
    picture: tuple[int, int], short_side_pixels: int, size: tuple[int, int]
) -> None:
    assert frame_size(picture, short_side_pixels) == size


def test_same_inputs_are_filmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make_film(script: Script) -> bytes:
        made.append(script.digest)
        return b"film"

    monkeypatch.setattr(film, "make_film", make_film)

    async def order() -> list[bytes]:
        studio = Studio()
        scripts = [Script(b"anna", b"voice", 480) for _ in range(3)]
        return await asyncio.gather(
            *map(studio.film, scripts), studio.film(Script(b"anna", b"voice", 720))
        )

    assert asyncio.run(order()) == [b"film"] * 4
    assert len(made) == 2


@pytest.mark.parametrize(
    ("document", "patch", "patched"),
    [
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": 1}, {"a": {"b": None, "c": 2}}, {"a": {"c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, [], []),
    ],
)
def test_merge_patch_follows_the_rfc(
    document: JsonValue, patch: JsonValue, patched: JsonValue
) -> None:
    assert merge_patch(document, patch) == patched


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://bucket.test/inbox/a%20b.png?signature=x#y", "/inbox/a b.png"),
        ("https://[broken/inbox/a.png?signature=x", ""),
        ("https://bucket.test", ""),
    ],
)
def test_path_of_a_url_holds_no_query(url: str, path: str) -> None:
    assert path_of(url) == path
