import pytest

from dropreel.provider import FailureCause
from dropreel.provider_words import cause_of, speak_of_credit

MODERATED = FailureCause.MODERATED
UNREADABLE = FailureCause.MEDIA_UNREADABLE
BAD_INPUT = FailureCause.BAD_INPUT
OTHER = FailureCause.OTHER


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("Content moderation: the input was flagged as unsafe.", MODERATED),
        ("NSFW content detected", MODERATED),
        ("The image was flagged by our safety system.", MODERATED),
        ("The content contains sensitive information.", MODERATED),
        ("This violates our usage policies.", MODERATED),
        ("content policy violation", MODERATED),
        ("image_url: The file could not be fetched: HTTP 403.", UNREADABLE),
        ("Failed to download image from the provided URL.", UNREADABLE),
        ("cannot read (URL removed)", UNREADABLE),
        ("Unable to access the provided media URL.", UNREADABLE),
        ("couldn't open the audio file", UNREADABLE),
        ("Image download failed: 403", UNREADABLE),
        ("The URL has expired.", UNREADABLE),
        ("invalid image url", UNREADABLE),
        ("Error while fetching audio_url", UNREADABLE),
        ("Access denied by the bucket policy of the file", UNREADABLE),
        ("No face was found in the image.", BAD_INPUT),
        ("Face not detected", BAD_INPUT),
        ("The face could not be found.", BAD_INPUT),
        ("failed to detect a face", BAD_INPUT),
        ("Invalid input: style", BAD_INPUT),
        ("unsupported audio format", BAD_INPUT),
        ("image_url: The image width and height must exceed 400 pixels.", BAD_INPUT),
        ("The audio is too long.", BAD_INPUT),
        ("", OTHER),
        ("The generation failed.", OTHER),
        ("CUDA out of memory", OTHER),
        ("failed to load model checkpoint", OTHER),
        ("Internal error: field names are case-sensitive", OTHER),
        ("retry policy exhausted", OTHER),
        ("worker must restart", OTHER),
        ("the render was aborted at moderate load", OTHER),
    ],
)
def test_cause_of_a_failure_is_read_from_its_words(words: str, cause: FailureCause) -> None:
    assert cause_of(words) is cause


@pytest.mark.parametrize(
    ("words", "about_credit"),
    [
        ("Insufficient credits. Please top up.", True),
        ("Insufficient balance", True),
        ("You do not have enough credit: not enough credits", True),
        ("There is no account balance left", True),
        ("no such model", False),
        ("the prompt is too long", False),
        ("the image has a red top and a credit card in it", False),
    ],
)
def test_want_of_credit_is_read_from_a_refusals_words(words: str, about_credit: bool) -> None:
    assert speak_of_credit(words) is about_credit
