"""Write the README's table of models, from the catalog.

python -m local.models
"""

from pathlib import Path

from dropreel.model.catalog import MODELS, TITLES, AudioLimits, ImageLimits, Offer, Option

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- models: made by `make events` -->", "<!-- end of models -->"


def table() -> str:
    """One row for each offer, in the order of the routes."""
    rows = [
        "| model | offered by | picture | voice | options | price |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model in MODELS.values():
        for place, offer in enumerate(model.route):
            name = f"`{model.name}`{f': {model.does}' if place == 0 else ', next offer'}"
            cells = (
                name,
                f"{TITLES[offer.provider]}{'' if offer.on else ', off by default'}",
                _picture(offer.image),
                _voice(offer.audio),
                _options(offer),
                _price(offer),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def with_table(readme: str) -> str:
    """The README with the current table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def _picture(limits: ImageLimits) -> str:
    if limits.side_over_pixels is None or limits.side_under_pixels is None:
        words = ["limits not published"]
    else:
        words = [f"{limits.side_over_pixels + 1} to {limits.side_under_pixels - 1} pixels each way"]
    if limits.size_at_most_bytes:
        words.append(f"at most {limits.size_at_most_bytes // 1_000_000} MB")
    if limits.size_under_bytes:
        words.append(f"under {limits.size_under_bytes // 1_000_000} MB")
    return ", ".join(words)


def _voice(limits: AudioLimits | None) -> str:
    if limits is None:
        return "none"
    words = ["needed" if limits.required else "if you like"]
    if limits.duration_under_seconds is not None:
        words.append(f"under {limits.duration_under_seconds:g} s")
    if limits.duration_at_least_seconds is not None:
        words.append(
            f"{limits.duration_at_least_seconds:g} to {limits.duration_at_most_seconds:g} s"
        )
    elif limits.duration_at_most_seconds is not None:
        words.append(f"up to {limits.duration_at_most_seconds:g} s")
    if limits.size_under_bytes:
        words.append(f"under {limits.size_under_bytes // 1_000_000} MB")
    return ", ".join(words)


def _options(offer: Offer) -> str:
    return "; ".join(_option(option) for option in offer.options)


def _option(option: Option) -> str:
    words = f"`{option.name}`"
    if option.values:
        values = (
            f"**{value}**" if value == option.default else str(value) for value in option.values
        )
        return f"{words} {', '.join(values)}"
    if option.kind == "boolean":
        return f"{words} {'**true**, false' if option.default else 'true, **false**'}"
    if option.length_under is not None or option.length_at_most is not None:
        longest = option.length_at_most or (option.length_under or 0) - 1
        words += f" up to {longest} characters"
    if option.at_least is not None:
        words += f" {option.at_least} to {option.at_most}"
    return f"{words} (needed)" if option.required else words


def _price(offer: Offer) -> str:
    prices = [f"${usd:g} a second of {name}" for name, usd in offer.usd_per_second.items()]
    if offer.billed_in_whole_seconds:
        prices.append("in whole seconds")
    if offer.billed_at_least_seconds:
        prices.append(f"at least {offer.billed_at_least_seconds}")
    return ", ".join(prices) or "not published"


def main() -> None:
    README.write_text(with_table(README.read_text()))


if __name__ == "__main__":
    main()
