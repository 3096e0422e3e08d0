"""Settings come from an environment that also holds the function's credentials."""

import pytest
from pydantic import ValidationError

from dropreel.settings import ConcludeSettings


def test_what_is_missing_is_named_and_nothing_else_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ec7e7")
    monkeypatch.delenv("VIDEO_BUCKET", raising=False)

    with pytest.raises(ValidationError) as raised:
        ConcludeSettings.from_environment()

    assert "VIDEO_BUCKET" in str(raised.value)
    assert "5ec7e7" not in str(raised.value)
