"""Store a provider's API token in its secret. The token is in no message and no log."""

from collections.abc import Mapping
from typing import Final

import boto3
from botocore.exceptions import ClientError

from operate.errors import OperateError, WrongUsage
from operate.stack import PATIENT, OutputMissing

_SUFFIX: Final = "TokenArn"


def provider_of(outputs: Mapping[str, str], wanted: str | None) -> str:
    """The wanted provider, or the only one, as spelled in the stack's outputs."""
    providers = [key.removesuffix(_SUFFIX) for key in outputs if key.endswith(_SUFFIX)]
    if not providers:
        raise OutputMissing(f"The stack has no output that ends in {_SUFFIX}.")
    name = (wanted or "").strip().casefold()
    found = [one for one in providers if name in ("", one.casefold())]
    if len(found) == 1:
        return found[0]
    which = f"PROVIDER= (--provider) is {' or '.join(sorted(providers))}."
    if name:
        raise WrongUsage(f"The stack has no token for {wanted}: {which}")
    raise WrongUsage(f"Name the provider: {which}")


def store(outputs: Mapping[str, str], provider: str, typed: str) -> None:
    """Store the token without the blanks around it."""
    token = typed.strip()
    if not token:
        raise OperateError("Nothing was stored: the token is empty.")
    if not (token.isascii() and token.isprintable()):
        raise OperateError("Nothing was stored: a token has only plain letters, digits and signs.")
    try:
        boto3.client("secretsmanager", config=PATIENT).put_secret_value(
            SecretId=outputs[f"{provider}{_SUFFIX}"], SecretString=token
        )
    except ClientError as refusal:
        # Only the code: AWS's message may repeat the token.
        code = refusal.response["Error"].get("Code")
        raise OperateError(f"AWS did not store the token ({code}).") from None
