"""Which requests in a provider's list have our files."""

import pytest

from dropreel.providers.listing import files_in, hides_versions

FILE = ("/work/anna-01/image.png", "v1")
URL = "https://uploads.s3.amazonaws.com/work/anna-01/image.png?versionId=v1&X-Amz-Signature=1"


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": URL},
        {"image": URL.replace("Signature=1", "Signature=2&X-Amz-Expires=60")},
        {"image": URL.replace("amazonaws.com", "eu-central-1.amazonaws.com"), "seed": -1},
        {"image": "https://uploads.example/work%2Fanna-01/image.png?x=1&versionId=v1"},
        [{"images": [URL], "prompt": "She talks."}],
        URL,
    ],
)
def test_file_is_known_by_its_path_and_version(inputs: object) -> None:
    assert files_in(inputs) == {FILE}


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        {},
        {"image": URL.replace("versionId=v1&", "")},
        {"image": URL.replace("v1&", "v1&versionId=v2&")},
        {"image": "https://[", "prompt": "anna-01", "seed": 7},
    ],
)
def test_other_texts_are_no_files(inputs: object) -> None:
    assert files_in(inputs) == frozenset()


@pytest.mark.parametrize(("old", "new"), [("=v1", "=v2"), ("anna-01", "anna-02")])
def test_other_version_or_path_is_another_file(old: str, new: str) -> None:
    assert not files_in(URL) & files_in(URL.replace(old, new))


@pytest.mark.parametrize(
    ("url", "hides"),
    [
        (URL, False),
        (URL.split("?", maxsplit=1)[0], True),
        (URL.replace("versionId=v1", "versionId="), True),
        (URL.split("?", maxsplit=1)[0].replace("anna-01", "anna-02"), False),
    ],
)
def test_url_of_our_file_without_its_version_shows_too_little(url: str, hides: bool) -> None:
    assert hides_versions({"image": url}, files_in(URL)) is hides
