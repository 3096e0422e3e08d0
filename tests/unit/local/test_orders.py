"""What a stand-in refuses at a submission, beyond the catalog."""

import pytest

from local.standin.orders import MAX_URL_CHARACTERS, Wrong, offers_of, read_order

OFFER = offers_of("runcomfy")["wan-ai/wan-2-2/speech-to-video"]


@pytest.mark.parametrize("field", ["image_url", "audio_url"])
def test_a_url_that_is_too_long_is_refused(field: str) -> None:
    start = "https://uploads.example/?X-Amz-Security-Token="
    longest = start.ljust(MAX_URL_CHARACTERS, "t")
    body: dict[str, object] = {"image_url": longest, "audio_url": longest}

    assert not isinstance(read_order(OFFER, body), list)
    assert read_order(OFFER, body | {field: f"{longest}t"}) == [
        Wrong(field, "URL should have at most 2048 characters", "url_too_long")
    ]
