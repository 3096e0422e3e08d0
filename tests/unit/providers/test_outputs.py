"""The video in an output, whatever the output's shape."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.providers.outputs import video_urls
from tests.support.provider_dialects import RUNCOMFY, TICKET, WAVESPEED, answer, provider_of

ONE, TWO = "https://cdn.example/1.mp4?s=1", "https://cdn.example/2?s=2"
COVER = "https://cdn.example/cover.png?s=3"

# In clients of the two providers.
SHAPES: list[dict[str, Any]] = [
    {"output": ONE},
    {"output": {"url": ONE}},
    {"output": [ONE]},
    {"output": {"video": ONE}},
    {"output": {"videos": [ONE]}},
    {"output": {"video_url": ONE}},
    {"video": ONE},
    {"video": {"url": ONE}},
    {"video_url": ONE},
    {"videos": [{"url": ONE}]},
    {"outputs": ONE},
    {"outputs": [ONE]},
    {"outputs": [{"url": ONE}]},
    {"outputs": [{"video": ONE}]},
    {"outputs": [COVER, {"video": {"url": ONE}}]},
    {"outputs": {"9": {"images": [{"url": TWO}], "videos": [{"url": ONE}]}}},
    {"outputs": {"3": {"text": ["https://a/b"]}, "9": {"videos": [{"url": ONE}]}}},
    {"output": {"result": ONE}},
    {"outputs": {"0": ONE}},
    {"videos": {"0": ONE}},
    {"video": {"uri": ONE}},
    {"video": {"download_url": ONE}},
    {"output_video": ONE},
    {"outputs": {"12": {"images": [{"url": ONE}]}}},
    {"outputs": ["https://cdn.example/logo", ONE]},
    {"preview_video": ONE.replace("1.mp4", "preview.mp4"), "output": ONE},
    {"input_video": ONE.replace("1.mp4", "in.mp4"), "result": ONE},
]


@pytest.mark.parametrize("shape", SHAPES, ids=json.dumps)
def test_each_dialect_finds_the_video(shape: dict[str, Any]) -> None:
    runcomfy, _ = provider_of(RUNCOMFY, answer(200, {"request_id": "r1", **shape}))
    data = {"id": "r1", "status": "completed", **shape}
    wavespeed, _ = provider_of(WAVESPEED, answer(200, {"code": 200, "data": data}))

    assert runcomfy.result(TICKET).video_url == ONE
    assert wavespeed.result(TICKET).video_url == ONE


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        ({"url": TWO, "video": ONE}, (ONE, TWO)),
        ({"videoUrl": ONE, "Images": [TWO]}, (ONE,)),
        ([TWO, ONE], (ONE, TWO)),
        ({"images": [ONE], "video": TWO, "logs": ["see https://a/b.mp4"]}, (TWO,)),
        ({"outputs": ["https://cdn/abc"], "model": {"video": ONE}}, ("https://cdn/abc",)),
        ({"video": "https://cdn/My Video 1.mp4"}, ("https://cdn/My Video 1.mp4",)),
        ({"video": "HTTPS://cdn/1.mp4"}, ("HTTPS://cdn/1.mp4",)),
        ({"inputs": {"video": ONE}, "input_video": ONE, "meta": {"input": [ONE]}}, ()),
        ([f" {ONE}\n"], (ONE,)),
        ({"cover_image": {"url": TWO}, "thumbnail": {"url": TWO}, "audio": {"url": TWO}}, ()),
        ({"inputs": {"video": TWO}, "mask": TWO, "logs": [TWO], "seed": TWO}, ()),
        ("done", ()),
        ([7, True, None, "", {}], ()),
    ],
)
def test_other_media_and_texts_are_no_video(output: object, urls: tuple[str, ...]) -> None:
    assert video_urls(output) == urls


_WRAPPED = st.recursive(
    st.just(ONE),
    lambda inner: st.one_of(
        st.builds(lambda one: [one], inner),
        st.builds(lambda one: [None, COVER, one], inner),
        st.builds(
            lambda name, one: {"image": TWO, name: one},
            st.sampled_from(["video", "videos", "video_url", "url", "output", "outputs"]),
            inner,
        ),
        st.builds(lambda one: {"node_9": {"text": TWO, "videos": [one]}}, inner),
    ),
    max_leaves=3,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([ONE, TWO, COVER]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.sampled_from(["video", "url", "image", "output"]), inner)
    ),
)


@given(_WRAPPED)
def test_video_is_found_however_it_is_wrapped(output: object) -> None:
    is_too_deep = json.dumps(output).count("[") + json.dumps(output).count("{") > 8
    assert video_urls(output)[:1] == (ONE,) or is_too_deep


@given(_JSON)
def test_any_output_is_read_and_nothing_is_made_up(output: object) -> None:
    for url in video_urls(output):
        assert url in (ONE, TWO) or "://" in url
        assert json.dumps(url)[1:-1] in json.dumps(output)


def test_endless_nesting_is_not_followed() -> None:
    output: object = ONE
    for _ in range(500):
        output = [output]

    assert video_urls(output) == ()


@pytest.mark.parametrize("code", ["DataInspectionFailed", "InvalidParameter.DataInspection", "E1"])
@pytest.mark.parametrize("dialect", [RUNCOMFY, WAVESPEED], ids=str)
def test_error_code_may_be_a_word(dialect: Any, code: str) -> None:  # noqa: ANN401
    failed = dialect.failed("") | {"error_code": code}
    if dialect is WAVESPEED:
        failed = {"code": 200, "data": failed["data"] | {"error_code": code}}
    provider, _ = provider_of(dialect, answer(200, failed))

    assert code in provider.ask(TICKET).message


@pytest.mark.parametrize("code", ["", "0", 0, None, "null", "None", "ok", "SUCCESS"])
def test_error_code_that_says_no_error_is_none(code: object) -> None:
    provider, _ = provider_of(RUNCOMFY, answer(200, {"request_id": "r1", "error_code": code}))

    assert provider.submit(RUNCOMFY.endpoint, {}) == "r1"
