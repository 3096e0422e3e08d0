"""Options: one spelling for people, each offer's own spelling for its provider."""

import pytest

from dropreel.model.catalog import MODELS as CATALOG
from dropreel.model.catalog import TITLES, Offer, OptionValue, in_service
from dropreel.model.errors import Reason
from dropreel.model.job import Job
from dropreel.render import options

MODELS = in_service(CATALOG)
SPEECH = MODELS["wan-2.2-speech-to-video"]
IMAGE = MODELS["wan-2.2-image-to-video"]
FLASH = MODELS["wan-2.6-flash-image-to-video"]
RUNCOMFY, WAVESPEED = SPEECH.route
PROMPTED = {"prompt": "She waves."}


def judged(offer: Offer, **asked: OptionValue) -> list[Reason]:
    model = next(model for model in MODELS.values() if offer in model.route)
    needed = PROMPTED if model.needs_prompt else {}
    everything = {**needed, **asked}
    return list(
        options.objections(
            model, offer, everything, lambda name: f"file of {name}", TITLES, catalog=MODELS
        )
    )


@pytest.mark.parametrize(
    ("offer", "asked", "fields"),
    [
        (RUNCOMFY, {}, {}),
        (RUNCOMFY, {"resolution": "720p"}, {"resolution": "720P"}),
        (RUNCOMFY, {"style": "sing"}, {"style": "sing"}),
        (WAVESPEED, {"resolution": "720p"}, {"resolution": "720p"}),
        (WAVESPEED, {"seed": -1, "prompt": "Hi"}, {"seed": -1, "prompt": "Hi"}),
        (FLASH.route[0], {"generate_audio": False}, {"audio": False}),
        (FLASH.route[0], {"duration": 10}, {"duration": 10}),
        (FLASH.route[0], {"seed": 0}, {"seed": 0}),
        (IMAGE.route[0], {"template": "flying", "prompt_extend": True}, None),
        (IMAGE.route[0], {"template": "Fresh Paint", "seed": -(10**12)}, None),
        (IMAGE.route[0], {"negative_prompt": ""}, None),
    ],
)
def test_offer_is_sent_what_was_asked_and_nothing_else(
    offer: Offer, asked: dict[str, OptionValue], fields: dict[str, OptionValue] | None
) -> None:
    assert judged(offer, **asked) == []
    assert options.fields(offer, asked) == (asked if fields is None else fields)


@pytest.mark.parametrize(
    ("offer", "name", "value", "rule"),
    [
        (RUNCOMFY, "resolution", "1080p", "480p or 720p"),
        (RUNCOMFY, "style", "dance", "speech, sing or perform"),
        (FLASH.route[0], "duration", "5", "5, 10 or 15"),
        (FLASH.route[0], "duration", True, "5, 10 or 15"),
        (FLASH.route[0], "generate_audio", 0, "true or false"),
        (FLASH.route[0], "seed", -1, "a whole number from 0 to 2147483647"),
        (FLASH.route[0], "seed", 2**31, "a whole number from 0 to 2147483647"),
        (FLASH.route[0], "seed", True, "a whole number from 0 to 2147483647"),
        (IMAGE.route[0], "seed", "x", "a whole number"),
        (IMAGE.route[0], "template", 5, "a text"),
        (IMAGE.route[0], "duration", 10, "5"),
    ],
)
def test_wrong_value_is_refused_with_the_allowed_ones(
    offer: Offer, name: str, value: OptionValue, rule: str
) -> None:
    (reason,) = judged(offer, **{name: value})

    assert reason.file == f"file of {name}"
    assert reason.rule == f"{name}: {rule}"
    assert reason.found.startswith(f"{name}: ")
    assert reason.cure == f"Set {name} to {rule}, or leave it out."


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("seed", 7, "Leave seed out."),  # the model's other offer has it
        (
            "generate_audio",
            True,
            'Leave generate_audio out, or set "model" to "wan-2.6-flash-image-to-video", which '
            "takes it.",
        ),
        (
            "duration",
            5,
            'Leave duration out, or set "model" to "wan-2.2-image-to-video" or '
            '"wan-2.6-flash-image-to-video", which takes it.',
        ),
        (  # only one of the two takes this value
            "duration",
            10,
            'Leave duration out, or set "model" to "wan-2.6-flash-image-to-video", which takes it.',
        ),
        ("duration", 7, "Leave duration out."),
    ],
)
def test_option_of_another_offer_or_model_is_refused(
    name: str, value: OptionValue, cure: str
) -> None:
    (reason,) = judged(RUNCOMFY, **{name: value})

    assert reason.rule == "no other options than style and resolution"
    assert reason.found == f"the option {name}"
    assert reason.cure == cure


@pytest.mark.parametrize(
    ("offer", "name", "longest", "rule"),
    [
        (IMAGE.route[0], "prompt", 799, "prompt: fewer than 800 characters"),
        (IMAGE.route[0], "negative_prompt", 500, "negative_prompt: at most 500 characters"),
        (FLASH.route[0], "prompt", 1499, "prompt: fewer than 1500 characters"),
    ],
)
def test_length_counts_characters_not_bytes(
    offer: Offer, name: str, longest: int, rule: str
) -> None:
    assert judged(offer, **{name: "é" * longest}) == []

    (reason,) = judged(offer, **{name: "é" * (longest + 1)})

    assert (reason.rule, reason.found) == (rule, f"{name}: {longest + 1} characters")
    assert reason.cure == f"Shorten the {name.replace('_', ' ')}."


def test_missing_prompt_says_where_to_write_it() -> None:
    (reason,) = options.objections(
        IMAGE, IMAGE.route[0], {}, lambda name: "inbox/anna.png", TITLES, catalog=MODELS
    )

    assert (reason.rule, reason.found) == ("a prompt", "no prompt")
    assert (
        reason.cure
        == "Describe the motion in a text file with the name of the job's files, such as anna.txt."
    )


def test_prompt_for_an_offer_without_one_is_never_dropped() -> None:
    (reason,) = judged(RUNCOMFY, prompt="She waves.")

    assert (reason.rule, reason.found, reason.cure) == (
        "no prompt",
        "a prompt",
        'Remove the prompt: the .txt file, or "prompt" in the .json file.',
    )


@pytest.mark.parametrize(
    ("asked", "cure"),
    [
        (
            {"style": "sing", "seed": 7},
            "Leave out either seed (for RunComfy) or style (for WaveSpeed), and keep the others.",
        ),
        (
            {"style": "sing", "seed": 7, "prompt": "She sings.", "resolution": "480p"},
            "Leave out either seed and prompt (for RunComfy) or style (for WaveSpeed), and keep "
            "the others. "
            'The prompt is the .txt file, or "prompt" in the .json file.',
        ),
    ],
)
def test_options_that_no_offer_takes_together_are_one_choice(
    asked: dict[str, OptionValue], cure: str
) -> None:
    (reason,), other = judged(RUNCOMFY, **asked), judged(WAVESPEED, **asked)

    assert other == [reason]
    assert reason.cure == cure


@pytest.mark.parametrize("prompt", [None, "", " \n"])
def test_blank_prompt_is_none(prompt: str | None) -> None:
    job = Job(id="a-1", bucket="u", folder="", stem="a", model="m", prompt=prompt, inputs=())

    assert options.asked_of(job) == {}


def test_long_value_is_shown_in_part() -> None:
    (reason,) = judged(RUNCOMFY, style="x" * 5000)

    assert len(reason.found) < 100
