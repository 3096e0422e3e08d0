"""Run a stand-in: `python -m local.standin --provider wavespeed --token secret`."""

import argparse
import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path

from dropreel.model.catalog import TITLES, ProviderName
from local.standin.runcomfy import RunComfy
from local.standin.server import Dialect, Settings, Standin, listening, url_of
from local.standin.wavespeed import WaveSpeed

DIALECTS: Mapping[ProviderName, Dialect] = {
    "runcomfy": RunComfy(),
    "wavespeed": WaveSpeed(),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m local.standin",
        description="A stand-in for a provider on this machine. It makes no AI video.",
    )
    parser.add_argument("--provider", choices=list(DIALECTS), default="runcomfy")
    parser.add_argument("--token", required=True, help="the one token that is accepted")
    parser.add_argument("--port", type=int, default=0, help="0, the default, is any free port")
    parser.add_argument("--port-file", type=Path, help="write the port here once it is open")
    parser.add_argument("--queue-seconds", type=float, default=Settings.queue_seconds)
    parser.add_argument("--render-seconds", type=float, default=Settings.render_seconds)
    given = parser.parse_args()

    settings = Settings(given.token, given.queue_seconds, given.render_seconds)
    say = functools.partial(print, flush=True)
    standin = Standin(DIALECTS[given.provider], settings)
    with listening(standin.app(log=say), given.port) as (server, door):
        say(f"The stand-in for {TITLES[given.provider]} listens on {url_of(door)}")
        if given.port_file:
            new = given.port_file.with_name(given.port_file.name + ".new")
            new.write_text(f"{door.getsockname()[1]}\n")
            new.replace(given.port_file)  # so no reader finds half of it
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[door])


if __name__ == "__main__":
    main()
