"""The two layers that `make build` made: how large they are, and whether the codecs' texts ship.

python -m tests.bench.layers
"""

import sys
from pathlib import Path

from local.embedded import PROJECT

MAX_UNZIPPED_BYTES = 230_000_000
"""AWS takes 250 MB for a function with its layers; a new version of a codec needs some room."""


def unzipped_bytes(build: Path) -> int:
    layers = [build / "DropreelLayer", build / "MediaLayer"]
    return sum(file.stat().st_size for one in layers for file in one.rglob("*") if file.is_file())


def has_licences(build: Path) -> bool:
    layer = build / "MediaLayer"
    wheels = ["pillow", "pillow_heif", "av"]
    texts = [next(layer.glob(f"python/{wheel}-*.dist-info/licenses"), None) for wheel in wheels]
    return (layer / "NOTICE").is_file() and (layer / "licenses").is_dir() and None not in texts


if __name__ == "__main__":
    built = PROJECT / ".aws-sam" / "build"
    size = unzipped_bytes(built)
    (library,) = built.glob("MediaLayer/python/_pillow_heif.*.so")
    print(f"layers together: {size / 1e6:.0f} MB unzipped ({library.name})")
    if size >= MAX_UNZIPPED_BYTES or not has_licences(built):
        sys.exit("the layers are too large, or ship without their licences")
