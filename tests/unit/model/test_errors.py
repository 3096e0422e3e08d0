"""Errors travel through Step Functions whole, however much there is to say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model import errors
from dropreel.model.errors import DropreelError, InputRejected, Reason, RequestRefused
from dropreel.outcome.conclusion import StepError

# A Cause has 32,768; Lambda's stack trace is in it too.
CHARACTERS_AT_MOST = 30_000
# The costliest to write in JSON that is in JSON, and what S3 allows of it in a key of 1024 bytes.
COSTLY_KEYS = ["\x01" * 1024, "🎤" * 256, '"' * 1024, "\\" * 1024, "é" * 512, "a" * 1024]
COSTLY_WORDS = ["\x01" * 9999, "🎤" * 9999, '"' * 9999, "x" * 99_999]


def reason(number: int = 1, *, file: str = "anna.png", words: str = "80 x 60 pixels") -> Reason:
    return Reason(file=file, rule=f"over 400 pixels, {number}", found=words, cure=words)


def cause(error: DropreelError) -> str:
    """As Lambda reports an exception to Step Functions."""
    return json.dumps({"errorMessage": str(error), "errorType": type(error).__name__})


def test_each_error_is_a_direct_child_of_the_base() -> None:
    # because conclude knows our codes by that
    ours = [it for it in vars(errors).values() if isinstance(it, type)]

    children = {it for it in ours if issubclass(it, DropreelError)} - {DropreelError}

    assert children == set(DropreelError.__subclasses__())


@pytest.mark.parametrize("file", COSTLY_KEYS)
@pytest.mark.parametrize("words", COSTLY_WORDS)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_no_refusal_is_too_long_for_a_cause(file: str, words: str, count: int) -> None:
    refusal = InputRejected((reason(file=file, words=words),) * count)

    assert len(cause(refusal)) < CHARACTERS_AT_MOST
    assert 1 <= len(refusal.reasons) <= count
    assert StepError.model_validate({"Error": "x", "Cause": cause(refusal)}).report == (
        refusal.report
    )


@given(st.lists(st.builds(Reason, **dict.fromkeys(("file", "rule", "found", "cure"), st.text()))))
def test_every_refusal_arrives_as_it_was_raised(reasons: list[Reason]) -> None:
    refusal = InputRejected(tuple(reasons))

    arrived = StepError.model_validate({"Error": "x", "Cause": cause(refusal)}).report

    assert arrived == refusal.report


@pytest.mark.parametrize("words", COSTLY_WORDS)
def test_no_providers_words_are_too_long_for_a_cause(words: str) -> None:
    assert len(cause(RequestRefused(words))) < CHARACTERS_AT_MOST


def test_short_reasons_are_all_listed_and_the_message_holds_the_first() -> None:
    reasons = tuple(map(reason, range(20)))

    refusal = InputRejected((*reasons, reason(file="anna.mp3")))

    assert refusal.reasons == (*reasons, reason(file="anna.mp3"))
    assert refusal.message == (
        "2 files cannot be used. anna.png: 80 x 60 pixels; needed: over 400 pixels, 0. "
        "And 20 more reasons."
    )


def test_reasons_that_are_left_out_are_counted() -> None:
    refusal = InputRejected(tuple(reason(number, words="x" * 300) for number in range(100)))

    assert 10 < len(refusal.reasons) < 100
    assert refusal.message.endswith(
        f"And 99 more reasons. {100 - len(refusal.reasons)} of them are not listed here."
    )


def test_one_reason_is_the_whole_message() -> None:
    assert InputRejected((reason(),)).message == (
        "1 file cannot be used. anna.png: 80 x 60 pixels; needed: over 400 pixels, 1."
    )


def test_the_advice_has_only_what_the_reasons_call_for() -> None:
    options, picture = reason(file="anna.json"), reason()
    of_an_offer = picture.model_copy(update={"offer": "RunComfy"})
    ending, offer = "If a corrected file has another ending", "keep the rules of one offer"

    for reasons, says in (
        ((options,), ("Correct the file as the reason says, and drop it again. If you", ())),
        ((options, picture), ("Correct the files as the reasons say, and drop", (ending,))),
        ((of_an_offer,), ("Correct the file as", (offer, ending))),
    ):
        begins, has = says
        advice = InputRejected(reasons).advice
        assert advice.startswith(begins)
        assert [part for part in (offer, ending) if part in advice] == list(has)


def test_words_that_are_cut_say_so() -> None:
    (cut,) = InputRejected((reason(words="x" * 1000),)).reasons

    assert len(cut.found) < 1000
    assert cut.found.endswith("x…")
