"""Ask the providers, by free calls with the stored tokens, what they say about the account."""

import json
from typing import Final

import boto3
from botocore.config import Config
from pydantic import TypeAdapter, ValidationError

from dropreel.model.catalog import TITLES
from dropreel.model.closure import ASK_PROVIDERS, AccountState, AskedProvider
from operate.errors import OperateError

# It asks one provider after the other.
_ONE_LONG_CALL: Final = Config(
    connect_timeout=10, read_timeout=160, tcp_keepalive=True, retries={"total_max_attempts": 2}
)
_ANSWER: Final = TypeAdapter(tuple[AskedProvider, ...])


def ask_providers(watch_function: str) -> tuple[AskedProvider, ...]:
    """What each provider says. One that was closed and accepts the account is on trial then.

    Raises `OperateError` if the function fails.
    """
    answer = boto3.client("lambda", config=_ONE_LONG_CALL).invoke(
        FunctionName=watch_function, Payload=json.dumps(ASK_PROVIDERS)
    )
    name = watch_function.partition(":")[0]  # without the alias
    if error := answer.get("FunctionError"):
        raise OperateError(
            f"The providers were not asked ({error}): see the log group /aws/lambda/{name}"
        )
    try:
        return _ANSWER.validate_json(answer["Payload"].read())
    except ValidationError:
        raise OperateError(f"The function {name} answered otherwise than expected.") from None


def sentence(asked: AskedProvider) -> str:
    """What a provider says, for a person."""
    title = TITLES.get(asked.provider, asked.provider)
    match asked.state:
        case AccountState.ACCEPTED:
            balance = "" if asked.balance_usd is None else f" Balance: {asked.balance_usd:.2f} USD."
            words = f"{title} accepts the token.{balance}"
        case AccountState.REFUSED | AccountState.NO_CREDIT:
            words = asked.message
        case AccountState.NO_TOKEN:
            return asked.message
        case AccountState.UNKNOWN:
            words = f"Whether {title} accepts the token is unknown: {asked.message}"
    if asked.is_on_trial and asked.state is AccountState.UNKNOWN:
        return f"{words} It was closed: now it gets one job at a time. Ask again in 5 minutes."
    if asked.is_on_trial:
        return f"{words} It was closed: now it gets one job at a time, and after 5 minutes all."
    return f"{words} It is closed: its jobs wait." if asked.is_closed else words
