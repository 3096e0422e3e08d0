"""Measure the time from the last upload to the call at the provider, without the settle delay.

    python -m tests.bench.latency

Each round deploys into an embedded AWS of its own, so that all functions are cold.
"""

import json
import sys
import time
import urllib.request
from datetime import UTC, datetime

from local import embedded
from local.embedded import OUT, PROJECT, Environment, Home

ROUNDS = 3
MAX_SECONDS = 6.0


def one_round(environment: Environment) -> float:
    """Drop the picture, then the voice; the seconds until the stand-in was asked to render."""
    s3, bucket = embedded.client(environment, "s3"), environment["UPLOAD_BUCKET"]
    samples = PROJECT / "samples"
    picture, voice = (samples / name for name in ("portrait.png", "speech.mp3"))
    s3.put_object(Bucket=bucket, Key="inbox/fast.png", Body=picture.read_bytes())
    s3.put_object(Bucket=bucket, Key="inbox/fast.mp3", Body=voice.read_bytes())
    uploaded_at = datetime.now(UTC)
    while True:
        url = f"{environment['RUNCOMFY_URL']}/_standin/requests"
        with urllib.request.urlopen(url, timeout=10) as answer:
            submissions = json.load(answer)["submissions"]
        if submissions:
            received_at = datetime.fromisoformat(submissions[0]["received_at"])
            return (received_at - uploaded_at).total_seconds()
        time.sleep(0.05)


def main() -> int:
    home = Home(OUT / "bench")
    measured = []
    for _ in range(ROUNDS):
        environment = embedded.up(home, parameters={"SettleSeconds": "0"}, say=lambda _: None)
        try:
            measured.append(one_round(environment))
        finally:
            embedded.down(home)
    told = ", ".join(f"{seconds:.2f} s" for seconds in measured)
    print(f"from the last upload to the call at the provider, functions cold: {told}")
    return 0 if max(measured) < MAX_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
