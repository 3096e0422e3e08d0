"""Which secret holds a provider's API token. The token itself stands in no message and no log."""

from collections.abc import Mapping
from typing import Final

import boto3
from botocore.exceptions import ClientError

from operate.errors import OperateError, WrongUsage
from operate.stack import PATIENT, OutputMissing

_SUFFIX: Final = "TokenArn"


def provider_of(outputs: Mapping[str, str], wanted: str | None) -> str:
    """The provider that is wanted, or the only one, as the stack's outputs write it."""
    providers = [key.removesuffix(_SUFFIX) for key in outputs if key.endswith(_SUFFIX)]
    if not providers:
        raise OutputMissing(f"The stack has no output that ends in {_SUFFIX}.")
    asked = (wanted or "").strip().casefold()
    found = [one for one in providers if asked in ("", one.casefold())]
    if len(found) == 1:
        return found[0]
    which = f"PROVIDER= (--provider) is {' or '.join(sorted(providers))}."
    if asked:
        raise WrongUsage(f"The stack has no token for {wanted}: {which}")
    raise WrongUsage(f"Say whose token it is: {which}")


def store(outputs: Mapping[str, str], provider: str, typed: str) -> None:
    """The token alone, without the blanks around it."""
    token = typed.strip()
    if not token:
        raise OperateError("Nothing was stored: the token is empty.")
    if not (token.isascii() and token.isprintable()):
        raise OperateError("Nothing was stored: that is no token, it has letters that none has.")
    try:
        boto3.client("secretsmanager", config=PATIENT).put_secret_value(
            SecretId=outputs[f"{provider}{_SUFFIX}"], SecretString=token
        )
    except ClientError as refusal:
        # Only the code: AWS may repeat in its words what it was given.
        code = refusal.response["Error"].get("Code")
        raise OperateError(f"AWS did not store the token ({code}).") from None
