"""What the functions keep for the life of an execution environment."""

from dropreel.aws import clients
from dropreel.providers import registry, tokens

_KEPT = (
    clients.dynamodb,
    clients.events,
    clients.functions,
    clients.s3,
    clients.sns,
    clients.sqs,
    clients.stepfunctions,
    tokens._client,
    tokens._secrets,
    registry._made,
)


def forget_clients() -> None:
    """The next client of AWS or of a provider is a new one, as in a new environment."""
    for kept in _KEPT:
        kept.cache_clear()
