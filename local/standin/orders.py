"""Submissions: what their bodies ask for, checked against the catalog's copy of the page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pydantic import JsonValue

from dropreel.model.catalog import MODELS, Offer, Option, OptionValue, ProviderName

MAX_URL_CHARACTERS = 2_048
"""No provider of ours publishes a bound. This is the smallest that is usual for a URL in a schema
(pydantic's `HttpUrl` has 2,083), and includes a session token."""

_KINDS: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}


@dataclass(frozen=True)
class Order:
    """What a submission asks for."""

    offer: Offer
    image_url: str
    audio_url: str | None
    options: Mapping[str, OptionValue]  # named and spelled as the catalog does, defaults included
    body: Mapping[str, JsonValue]  # as it was sent

    @property
    def urls(self) -> Mapping[str, str]:
        """The URL that each field of the body gives."""
        given = {self.offer.image_field: self.image_url}
        if self.offer.audio_field and self.audio_url:
            given[self.offer.audio_field] = self.audio_url
        return given

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(map(path_of, self.urls.values()))

    @property
    def resolution(self) -> str:
        return str(self.options["resolution"])

    @property
    def duration_seconds(self) -> int | None:
        """None: as long as the voice."""
        asked = self.options.get("duration")
        return None if asked is None else int(asked)

    @property
    def wants_a_tone(self) -> bool:
        """In the place of the sound that the real model would make up."""
        return self.audio_url is None and self.options.get("generate_audio") is True


@dataclass(frozen=True)
class Wrong:
    """What is wrong with one field of a body, or with the body as a whole."""

    field: str | None
    message: str
    kind: str


def path_of(url: str) -> str:
    """The path of a URL as people write it. Never the query: that is where the secrets are."""
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""


def offers_of(provider: ProviderName) -> Mapping[str, Offer]:
    """Every offer of a provider, by its endpoint."""
    offers = (offer for model in MODELS.values() for offer in model.route)
    return {offer.endpoint: offer for offer in offers if offer.provider == provider}


def read_order(offer: Offer, body: object) -> Order | list[Wrong]:
    """The order in a body, or everything that is wrong with it.

    Stricter than the pages in one thing: a field that the schema does not know is refused, so
    that no option is ever dropped silently.
    """
    if not isinstance(body, dict):
        return [Wrong(None, "The body must be a JSON object.", "dict_type")]
    options = {option.field: option for option in offer.options}
    urls = tuple(filter(None, (offer.image_field, offer.audio_field)))
    wrong = [
        *(Wrong(name, "Field required", "missing") for name in _required(offer) if name not in body)
    ]
    for name, value in body.items():
        if name in urls:
            wrong += _wrong_url(name, value)
        elif name in options:
            wrong += _wrong_option(options[name], value)
        else:
            wrong.append(Wrong(name, "Extra inputs are not permitted", "extra_forbidden"))
    if wrong:
        return wrong
    asked = {
        option.name: _in_our_spelling(option, body[option.field])
        if option.field in body
        else option.default
        for option in offer.options
    }
    return Order(
        offer=offer,
        image_url=body[offer.image_field],
        audio_url=body.get(offer.audio_field),
        options={name: value for name, value in asked.items() if value is not None},
        body=body,
    )


def schema_of(offer: Offer) -> dict[str, JsonValue]:
    """The JSON Schema of a submission's body."""
    fields: dict[str, JsonValue] = {
        name: {"type": "string", "format": "uri"}
        for name in filter(None, (offer.image_field, offer.audio_field))
    }
    for option in offer.options:
        allowed = [option.sent_as.get(str(one), one) for one in option.values]
        default = option.default
        fields[option.field] = {
            "type": option.kind,
            **({"enum": list(allowed)} if allowed else {}),
            **({} if default is None else {"default": option.sent_as.get(str(default), default)}),
        }
    return {"type": "object", "properties": fields, "required": [*_required(offer)]}


def _required(offer: Offer) -> Iterator[str]:
    yield offer.image_field
    if offer.audio_field and offer.audio and offer.audio.required:
        yield offer.audio_field
    yield from (option.field for option in offer.options if option.required)


def _wrong_url(name: str, value: object) -> Iterator[Wrong]:
    if not isinstance(value, str):
        yield Wrong(name, "Input should be a valid string", "string_type")
    elif not value.startswith(("https://", "http://")):
        yield Wrong(name, "Input should be a valid URL", "url_parsing")
    elif len(value) > MAX_URL_CHARACTERS:
        yield Wrong(
            name, f"URL should have at most {MAX_URL_CHARACTERS} characters", "url_too_long"
        )


def _wrong_option(option: Option, value: object) -> Iterator[Wrong]:
    name = option.field
    if type(value) is not _KINDS[option.kind]:
        yield Wrong(name, f"Input should be a valid {option.kind}", f"{option.kind}_type")
        return
    allowed = [option.sent_as.get(str(one), one) for one in option.values]
    if allowed and value not in allowed:
        yield Wrong(name, f"Input should be one of {', '.join(map(str, allowed))}", "enum")
    if isinstance(value, int):
        if option.at_least is not None and value < option.at_least:
            yield Wrong(name, f"Input should be at least {option.at_least}", "greater_than_equal")
        if option.at_most is not None and value > option.at_most:
            yield Wrong(name, f"Input should be at most {option.at_most}", "less_than_equal")
    if isinstance(value, str):
        bounds = [option.length_at_most, option.length_under and option.length_under - 1]
        longest = min((bound for bound in bounds if bound is not None), default=len(value))
        if len(value) > longest:
            yield Wrong(name, f"String should have at most {longest} characters", "string_too_long")


def _in_our_spelling(option: Option, value: OptionValue) -> OptionValue:
    ours = {theirs: our for our, theirs in option.sent_as.items()}
    return ours.get(str(value), value)
