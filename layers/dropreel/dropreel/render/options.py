"""A job's options and prompt: whether an offer takes them, and how they are sent to it.

An option that is set is never dropped: an offer that does not take it or its value is not asked.
An option that is not set is not sent, so that the provider's default holds.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from dropreel.media.fitting import listed
from dropreel.model.catalog import (
    TITLES,
    Catalog,
    Model,
    Offer,
    Option,
    OptionValue,
    ProviderName,
)
from dropreel.model.errors import Reason
from dropreel.model.job import Job

PROMPT = "prompt"
_MAX_SHOWN_CHARACTERS = 80


def asked_of(job: Job) -> dict[str, OptionValue]:
    """The job's options and prompt. A blank prompt is none."""
    prompt = {PROMPT: job.prompt} if job.prompt and job.prompt.strip() else {}
    return {**job.options, **prompt}


def fields(offer: Offer, asked: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The request's fields, in the offer's spelling. The offer must have no objections."""
    sent: dict[str, OptionValue] = {}
    for name, value in asked.items():
        option = offer.option(name)
        if option is None:
            raise KeyError(name)
        sent[option.field] = option.sent_as.get(value, value) if isinstance(value, str) else value
    return sent


def objections(
    model: Model,
    offer: Offer,
    asked: Mapping[str, OptionValue],
    file_of: Callable[[str], str],
    configured: Collection[ProviderName],
    *,
    catalog: Catalog,
) -> Iterator[Reason]:
    """Why the offer does not take them. `file_of` names the file that sets an option; `configured`
    are the providers that can be asked. `catalog` has the models that a cure may name."""
    for required in offer.options:
        if required.required and required.name not in asked:
            yield Reason(
                file=file_of(required.name),
                rule=f"a {required.name}",
                found=f"no {required.name}",
                cure="Describe the motion in a text file with the name of the job's files, "
                "such as anna.txt.",
            )
    choice = _choice([one for one in model.route if one.provider in configured], asked)
    if choice:
        yield _choose(choice, file_of)
    to_choose = {name for names in choice.values() for name in names}
    for name, value in asked.items():
        if option := offer.option(name):
            yield from _value_objections(option, value, file_of(name))
        elif name not in to_choose:
            yield _unknown(model, offer, name, value, file_of(name), catalog=catalog)


def _choice(route: Sequence[Offer], asked: Iterable[str]) -> dict[str, list[str]]:
    """By offer, what only others of the route take. Empty unless each has such options: then no
    offer takes all of them, although each is taken by one."""
    known = [name for name in asked if any(offer.option(name) for offer in route)]
    left = {
        TITLES[offer.provider]: [name for name in known if offer.option(name) is None]
        for offer in route
    }
    return left if all(left.values()) else {}


def _choose(choice: Mapping[str, Sequence[str]], file_of: Callable[[str], str]) -> Reason:
    """One reason for all offers: told one by one, they would ask to leave out all options."""
    names = list(dict.fromkeys(name for left in choice.values() for name in left))
    ways = [f"{listed(left, 'and')} (for {title})" for title, left in choice.items()]
    cure = f"Leave out either {listed(ways, 'or')}, and keep the others."
    if PROMPT in names:
        cure += f" The prompt is {_THE_PROMPT}."
    return Reason(
        file=file_of(names[0]),
        rule="options that one offer takes together",
        found=f"{listed(names, 'and')} together",
        cure=cure,
    )


_THE_PROMPT = 'the .txt file, or "prompt" in the .json file'


def _unknown(
    model: Model, offer: Offer, name: str, value: OptionValue, file: str, *, catalog: Catalog
) -> Reason:
    known = [option.name for option in offer.options]
    cure = f"Leave {name} out."
    if name == PROMPT:
        cure = f"Remove the prompt: {_THE_PROMPT}."
    if not any(other.option(name) for other in model.route) and (
        takers := _takers(catalog, name, value)
    ):
        listed_takers = listed([json.dumps(taker) for taker in takers], "or")
        cure = f'Leave {name} out, or set "model" to {listed_takers}, which takes it.'
    return Reason(
        file=file,
        rule="no prompt" if name == PROMPT else f"no other options than {listed(known, 'and')}",
        found="a prompt" if name == PROMPT else f"the option {name}",
        cure=cure,
    )


def _takers(catalog: Catalog, name: str, value: OptionValue) -> list[str]:
    """The models that take an option with this value."""
    return [
        model.name
        for model in catalog.values()
        for options in [[offer.option(name) for offer in model.route]]
        if any(one and not any(_value_objections(one, value, "")) for one in options)
    ]


def _value_objections(option: Option, value: OptionValue, file: str) -> Iterator[Reason]:
    name, length = option.name, len(value) if isinstance(value, str) else 0
    most, under = option.length_at_most, option.length_under
    if not _allows(option, value):
        shown = json.dumps(value, ensure_ascii=False)
        if len(shown) > _MAX_SHOWN_CHARACTERS:
            shown = f"{shown[:_MAX_SHOWN_CHARACTERS]}…"
        yield Reason(
            file=file,
            rule=f"{name}: {_rule(option)}",
            found=f"{name}: {shown}",
            cure=f"Set {name} to {_rule(option)}, or leave it out.",
        )
    elif (most is not None and length > most) or (under is not None and length >= under):
        few = f"fewer than {under}" if under is not None else f"at most {most}"
        yield Reason(
            file=file,
            rule=f"{name}: {few} characters",
            found=f"{name}: {length} characters",
            cure=f"Shorten the {name.replace('_', ' ')}.",
        )


def _allows(option: Option, value: OptionValue) -> bool:
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
