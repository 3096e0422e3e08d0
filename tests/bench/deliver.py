"""How much memory deliver needs to copy a video of 1 GiB: `make bench-deliver`.

One process serves the video and plays S3, swallowing what it is sent; this one runs the real
code between the two and fails when its memory grew by more than 64 MiB. Linux only: the peak
comes from `/proc/self`.
"""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast

MIB = 1024**2
VIDEO_BYTES = 1024 * MIB
GROWTH_AT_MOST_MIB = 64
ZEROS = bytes(MIB)

UNDERWAY = {
    "plan": {
        "job": {
            "id": "bench-0123456789abcdef",
            "bucket": "uploads",
            "folder": "",
            "stem": "bench",
            "model": "wan-2.2-speech-to-video",
            "inputs": [],
        },
        "route": [
            {
                "provider": "runcomfy",
                "endpoint": "wan-ai/wan-2-2/speech-to-video",
                "fields": {},
            }
        ],
        "image": {"role": "image", "key": "inbox/a.png", "version_id": "i1", "size_bytes": 1},
        "image_facts": {"format": "png", "width": 1, "height": 1, "size_bytes": 1},
        "audio": None,
        "audio_facts": None,
    },
    "ticket": {
        "provider": "runcomfy",
        "endpoint": "wan-ai/wan-2-2/speech-to-video",
        "request_id": "r-1",
        "attempt": 1,
        "offer": 0,
        "submitted_at": "2026-11-20T12:00:00Z",
    },
    "started_at": "2026-11-20T12:00:00Z",
}


def main() -> int:
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        origin = server.stdout.readline().strip()
        return copy(origin)
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()


def copy(origin: str) -> int:
    os.environ |= {
        "AWS_ENDPOINT_URL": origin,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # Nothing else is loaded here: memory that an import has freed would hide some of the growth.
    from dropreel.aws.s3 import S3Storage
    from dropreel.model.ledger import Ledger
    from dropreel.model.messages import ActiveRender
    from dropreel.model.provider import Provider, Result
    from dropreel.outcome.delivery import deliver
    from local.standin_videos import download_from

    download = download_from(origin)
    storage = S3Storage()
    found = Result(video_url=f"{origin}/video.mp4")
    provider = SimpleNamespace(result=lambda request_id: found)
    ledger = SimpleNamespace(
        attempts=lambda job_id: (),
        runs=lambda job_id: (),
        end=lambda job, started_at, outcome, now: outcome,
    )
    storage.text("videos", "warm-up")  # a Lambda function's first call loads as much, too

    before_mib = memory_mib("VmRSS")
    with suppress(OSError):  # where it is not allowed, the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    begun = time.monotonic()
    ready = deliver(
        ActiveRender.model_validate(UNDERWAY),
        ledger=cast(Ledger, ledger),
        providers=lambda name: cast(Provider, provider),
        storage=storage,
        fetch=partial(download, seconds_left=lambda: 900),
        answered_drop=lambda job: None,
        video_bucket="videos",
        version="",
        now=lambda: datetime.now(UTC),
    )
    seconds = time.monotonic() - begun
    growth_mib = memory_mib("VmHWM") - before_mib

    assert ready.video.size_bytes == VIDEO_BYTES
    print(f"copied 1 GiB in {seconds:.1f} s, sha256 {ready.video.sha256[:16]}...")
    print(f"memory grew by {growth_mib:.1f} MiB at its peak (at most {GROWTH_AT_MOST_MIB})")
    return 0 if growth_mib <= GROWTH_AT_MOST_MIB else 1


def memory_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


class Both(BaseHTTPRequestHandler):
    """The provider's CDN at `/video.mp4`, S3 everywhere else."""

    protocol_version = "HTTP/1.1"
    head = b""

    def do_GET(self) -> None:
        if self.path != "/video.mp4":
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(VIDEO_BYTES))
        self.end_headers()
        self.wfile.write(self.head)
        left = VIDEO_BYTES - len(self.head)
        while left:
            left -= self.wfile.write(ZEROS[:left])

    def do_HEAD(self) -> None:
        self.answer(404, b"")

    def do_POST(self) -> None:
        self.swallow()
        if self.path.endswith("?uploads"):
            self.answer(200, b"<R><UploadId>upload</UploadId></R>")
        else:
            self.answer(200, b"<R><ETag>whole</ETag></R>", {"x-amz-version-id": "v1"})

    def do_PUT(self) -> None:
        self.swallow()
        self.answer(200, b"", {"ETag": '"part"'})

    def swallow(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, MIB)))

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def serve() -> None:
    from tests.support.videos import tiny_video

    # A real video, then one box of padding, whose length needs 64 bits.
    video = tiny_video("faststart")
    Both.head = video + b"\0\0\0\1free" + (VIDEO_BYTES - len(video)).to_bytes(8, "big")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Both)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    sys.path[:0] = [str(root), str(root / "layers" / "dropreel")]
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main())
