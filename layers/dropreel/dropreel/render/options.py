"""What a job asks for beside its media: judged by an offer, and put into the offer's words.

An option that somebody set is never dropped: an offer that does not know it, or not its value, is
not asked. What nobody set is not sent, so that the provider's own default holds.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches

from dropreel.media.fitting import listed
from dropreel.model.catalog import MODELS, Model, Offer, Option, OptionValue
from dropreel.model.errors import Reason
from dropreel.model.job import Job

PROMPT = "prompt"


def asked_of(job: Job) -> dict[str, OptionValue]:
    """All that the job sets, the prompt included. A blank prompt is none."""
    prompt = {PROMPT: job.prompt} if job.prompt and job.prompt.strip() else {}
    return {**job.options, **prompt}


def fields(offer: Offer, asked: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """What the offer will be told, in its spelling. It must have no objections."""
    told: dict[str, OptionValue] = {}
    for name, value in asked.items():
        option = offer.option(name)
        if option is None:
            raise KeyError(name)
        spelled = _canonical(option, value)
        told[option.field] = (
            option.sent_as.get(spelled, spelled) if isinstance(spelled, str) else spelled
        )
    return told


def objections(
    model: Model, offer: Offer, asked: Mapping[str, OptionValue], file_of: Callable[[str], str]
) -> Iterator[Reason]:
    """Why the offer cannot do what is asked. `file_of` tells which file sets an option."""
    for required in offer.options:
        if required.required and required.name not in asked:
            yield _missing(required.name, file_of(required.name))
    for name, value in asked.items():
        if option := offer.option(name):
            yield from _value_objections(option, value, file_of(name))
        else:
            yield _unknown(model, offer, name, file_of(name))


def _missing(name: str, file: str) -> Reason:
    return Reason(
        file=file,
        rule=f"a {name}",
        found=f"no {name}",
        cure="Say what shall happen in a text file with the same name and the ending .txt, "
        "then drop it into the same folder.",
    )


def _unknown(model: Model, offer: Offer, name: str, file: str) -> Reason:
    known = [option.name for option in offer.options]
    others = {option.name for offer in model.route for option in offer.options}
    cure = f"Leave {name} out."
    if name not in others:
        near = get_close_matches(name.lower(), sorted(others), 1, cutoff=0.5)
        takers = [m.name for m in MODELS.values() if any(o.option(name) for o in m.route)]
        if near:
            cure = f"Did you mean {near[0]}?"
        elif takers:
            cure = f"Leave it out, or ask for the model {listed(takers, 'or')}, which takes it."
    return Reason(
        file=file,
        rule="no prompt" if name == PROMPT else f"no other options than {listed(known, 'and')}",
        found="a prompt" if name == PROMPT else f"the option {name}",
        cure=cure,
    )


def _value_objections(option: Option, value: OptionValue, file: str) -> Iterator[Reason]:
    canonical = _canonical(option, value)
    name = option.name
    if not _allowed(option, canonical):
        yield Reason(
            file=file,
            rule=f"{name}: {_rule(option)}",
            found=f"{name}: {_shown(value)}",
            cure=_nearest(option, value),
        )
        return
    if not isinstance(canonical, str):
        return
    most, under = option.length_at_most, option.length_under
    if (most is not None and len(canonical) > most) or (
        under is not None and len(canonical) >= under
    ):
        yield Reason(
            file=file,
            rule=f"{name}: fewer than {under} characters"
            if under is not None
            else f"{name}: at most {most} characters",
            found=f"{name}: {len(canonical)} characters",
            cure=f"Shorten the {name.replace('_', ' ')}.",
        )


def _allowed(option: Option, value: OptionValue) -> bool:
    kinds = {"string": str, "integer": int, "boolean": bool}
    if type(value) is not kinds[option.kind]:  # True is an int, too
        return False
    if option.values:
        return value in option.values
    if option.kind != "integer":
        return True
    above = option.at_least is None or value >= option.at_least  # type: ignore[operator]
    below = option.at_most is None or value <= option.at_most  # type: ignore[operator]
    return above and below


def _canonical(option: Option, value: OptionValue) -> OptionValue:
    """The catalog's spelling of a value that is written with other capitals."""
    if isinstance(value, str) and option.values:
        spelled = {str(one).lower(): one for one in option.values if isinstance(one, str)}
        return spelled.get(value.strip().lower(), value)
    return value


def _rule(option: Option) -> str:
    if option.values:
        return listed([str(value) for value in option.values], "or")
    if option.kind == "boolean":
        return "true or false"
    if option.kind == "string":
        return "a text"
    if option.at_least is None or option.at_most is None:
        return "a whole number"
    return f"a whole number from {option.at_least} to {option.at_most}"


def _nearest(option: Option, value: OptionValue) -> str:
    allowed: tuple[OptionValue, ...] = option.values
    if option.kind == "boolean":
        allowed = (True, False)
    words = {_shown(one).strip('"').lower(): one for one in allowed}
    written = str(value).strip().lower()
    meant = words.get(written)
    if meant is None and isinstance(value, str) and option.kind == "integer":
        meant = int(written) if written.lstrip("-").isdecimal() else None
    if meant is not None and isinstance(value, str):
        return f"Write {_shown(meant)} without quotes."
    if near := get_close_matches(written, words, 1, cutoff=0.5):
        return f"Did you mean {_shown(words[near[0]])}?"
    return f"Set {option.name} to {_rule(option)}, or leave it out."


def _shown(value: OptionValue) -> str:
    """As a JSON file spells it, which also tells "5" from 5."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"
