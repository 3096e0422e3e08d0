"""The prefix is one for a whole process, so each case is a process of its own."""

import json
import os
import subprocess
import sys

_CASE = """
import json
from dropreel.inbox import job_file, pairing
from dropreel.model.job import Role, top_folder

name = pairing.name_of("media/in.box/team/anna.png")
path = job_file._wrong_path("media/in.box/team/anna.json", Role.IMAGE, "../../x.png", ())
print(json.dumps({
    "folder": name.folder,
    "folders": name.folders,
    "outside": pairing.name_of("inbox/anna.png"),
    "top": top_folder("media/in.box/team/anna.png"),
    "beside": job_file._key_of("../face.png", "media/in.box/team/anna.json"),
    "above": job_file._key_of("../../x.png", "media/in.box/team/anna.json"),
    "cure": path.cure,
}))
"""


def test_another_prefix_is_the_inbox_as_inbox_is() -> None:
    environment = os.environ | {"UPLOAD_PREFIX": "media/in.box/"}
    ran = subprocess.run(
        [sys.executable, "-c", _CASE], env=environment, check=True, capture_output=True, text=True
    )

    cure = json.loads(ran.stdout)
    assert "nothing is above media/in.box/: write at most 1 x ../." in cure.pop("cure")
    assert cure == {
        "folder": "team/",
        "folders": ["media/in.box/team/", "media/in.box/"],
        "outside": None,
        "top": "team/",
        "beside": "media/in.box/face.png",
        "above": None,
    }
