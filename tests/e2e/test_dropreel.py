"""What Dropreel promises, on the deployed template with IAM enforced."""

import hashlib
import io
import json
from typing import Any

import av
import jsonschema
import pytest

from local.contract import schema_of
from local.embedded import BUILD, STANDIN_TOKEN
from tests.bench import layers
from tests.e2e.conftest import PORTRAIT, SPEECH, Event, Stack, job_of, until

NOT_A_PICTURE = b"I am no picture, whatever my name says.\n" * 20


def assert_follows_schema(event: Event) -> None:
    jsonschema.validate(event, schema_of(event))


def error_file(stack: Stack, stem: str) -> dict[str, Any]:
    """The error file once it is there; it is written before the event is said."""
    body = stack.video_bucket(f"{stem}.error.json")
    assert body is not None, f"no error file for {stem}"
    told: dict[str, Any] = json.loads(body)
    return told


def terminal_events(stack: Stack, job: str) -> list[str]:
    return [
        e["detail-type"] for e in stack.all_events() if e["detail"].get("job", {}).get("id") == job
    ]


@pytest.mark.parametrize("picture_first", [True, False], ids=["picture first", "voice first"])
def test_a_picture_and_a_voice_become_a_video_and_an_event(
    stack: Stack, picture_first: bool
) -> None:
    stem = f"happy-{'picture' if picture_first else 'voice'}"
    files = [(f"team/{stem}.png", PORTRAIT), (f"team/{stem}.mp3", SPEECH)]
    given = [
        stack.upload(key, file.read_bytes())
        for key, file in (files if picture_first else reversed(files))
    ]
    job = job_of(stem, *given)

    event = stack.event_of(job)

    assert event["detail-type"] == "Video Ready"
    assert_follows_schema(event)
    assert event["resources"] == [stack.execution_arn(job)]
    displayed = [it for it in stack.displayed() if it["detail"]["job"]["id"] == job]
    assert sorted(it["detail-type"] for it in displayed) == ["Job Started", "Render Submitted"]
    for shown in displayed:
        assert_follows_schema(shown)
        assert shown["resources"] == event["resources"]
    video = event["detail"]["video"]
    body = stack.video_bucket(f"team/{stem}.mp4")
    assert body is not None
    assert video["sha256"] == hashlib.sha256(body).hexdigest()
    assert video["size_bytes"] == len(body)
    with av.open(io.BytesIO(body), "r") as film:
        picture, voice = film.streams.video[0], film.streams.audio[0]
        assert (picture.width, picture.height) == (video["width"], video["height"])
        assert picture.codec_context.name == "h264"
        assert voice.codec_context.name == "aac"
        frames = len(list(film.decode(picture)))
        assert picture.average_rate is not None
        assert frames / float(picture.average_rate) == pytest.approx(8.3, abs=0.3)
    assert video["duration_seconds"] == pytest.approx(8.3, abs=0.3)
    assert json.loads(stack.video_bucket(f"team/{stem}.json") or b"") == event["detail"]
    assert stack.ended(job) == "SUCCEEDED"
    (submission,) = stack.submissions(stem)
    assert submission["request_id"] == event["detail"]["render"]["request_id"]
    assert terminal_events(stack, job) == ["Video Ready"]
    notice = stack.notice_of(f"Video ready: team/{stem}")
    assert f"\ns3://{stack.environment['VIDEO_BUCKET']}/team/{stem}.mp4\n" in notice
    assert notice.endswith(f"\nJob: {job}\n")


def test_operators_see_a_job_its_story_and_its_cost(stack: Stack) -> None:
    job = stack.drop("seen/by-operators")
    actual_usd = stack.event_of(job)["detail"]["actual_usd"]

    def answer(*arguments: str) -> Any:  # noqa: ANN401 - JSON
        done = stack.operate(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (row,) = answer("jobs", "--folder", "seen")["jobs"]
    lines = answer("cost", "--since", "1h", "--by", "folder")["lines"]
    story = answer("job", "seen/by-operators")

    assert (row["job_id"], row["state"], row["actual_usd"]) == (job, "ready", actual_usd)
    (line,) = [line for line in lines if line["by"]["folder"] == "seen"]
    assert (line["renders"], line["failed"], line["usd"]) == (1, 0, actual_usd)
    (run,) = story["runs"]
    assert "delivered" in [moment["what"] for moment in run["moments"]]
    assert "Started the job" in [logged["message"] for logged in story["log"]]


def test_a_repeated_event_starts_nothing_new(stack: Stack) -> None:
    job = stack.drop("again")
    stack.event_of(job)
    sqs, bucket = stack.client("sqs"), stack.environment["UPLOAD_BUCKET"]
    queue = stack.output("IntakeQueueUrl")
    event = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "time": "2026-11-20T10:00:00Z",
        "detail": {
            "bucket": {"name": bucket},
            "object": {"key": "inbox/again.mp3", "size": SPEECH.stat().st_size},
        },
    }

    for _ in range(2):
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(event))
    until(lambda: stack.idle(queue), "the end of the intake queue's work")

    assert [e["name"] for e in stack.executions("again-")] == [job]
    assert len(stack.submissions("again")) == 1
    assert terminal_events(stack, job) == ["Video Ready"]


def test_names_may_hold_what_people_type(stack: Stack) -> None:
    stem = 'Familie Grün/Öma\'s "70." & 100% +1/a+b c 🎬.final'

    event = stack.event_of(stack.drop(stem))

    assert event["detail-type"] == "Video Ready"
    assert event["detail"]["video"]["key"] == f"{stem}.mp4"
    assert (stack.video_bucket(f"{stem}.mp4") or b"")[4:8] == b"ftyp"


def test_bad_files_are_refused_with_every_reason_before_anything_is_paid(stack: Stack) -> None:
    job = stack.drop("refused", image=NOT_A_PICTURE, audio=b"no sound")

    event = stack.event_of(job)

    assert event["detail-type"] == "Video Failed"
    assert_follows_schema(event)
    error = event["detail"]["error"]
    assert error["code"] == "InputRejected"
    assert {r["file"] for r in error["reasons"]} == {"inbox/refused.png", "inbox/refused.mp3"}
    assert error_file(stack, "refused")["error"] == error
    assert stack.submissions("refused") == []
    assert stack.ended(job) == "FAILED"
    assert terminal_events(stack, job) == ["Video Failed"]


def test_a_dry_run_pays_nothing_and_the_same_files_render_once_after_it(stack: Stack) -> None:
    spent = stack.ledger("spend")
    stack.upload("rehearsed.json", b'{"dry_run": true}')
    stack.drop("rehearsed")

    checked = stack.event(lambda event: event["detail"]["job"]["stem"] == "rehearsed")

    assert checked["detail-type"] == "Job Checked"
    assert_follows_schema(checked)
    assert checked["detail"]["accepted"] is True
    assert checked["detail"]["estimated_usd"] == pytest.approx(0.05 * 8.25, abs=0.05)
    assert json.loads(stack.video_bucket("rehearsed.check.json") or b"") == checked["detail"]
    dry = checked["detail"]["job"]["id"]
    assert stack.ended(dry) == "SUCCEEDED"
    assert stack.submissions("rehearsed") == []
    assert [item["sk"]["S"] for item in stack.ledger(f"job#{dry}")] == ["outcome#001"]
    assert stack.ledger("spend") == spent

    stack.upload("rehearsed.json", b"{}")
    ready = stack.event(
        lambda event: (
            event["detail"]["job"]["stem"] == "rehearsed" and event["detail"]["job"]["id"] != dry
        )
    )

    assert ready["detail-type"] == "Video Ready"
    assert len(stack.submissions("rehearsed")) == 1
    assert len(stack.executions("rehearsed-")) == 2
    assert terminal_events(stack, dry) == ["Job Checked"]


def test_a_corrected_file_makes_a_new_job_and_removes_the_error_file(
    stack: Stack,
) -> None:
    stack.event_of(stack.drop("mended", image=NOT_A_PICTURE))
    assert stack.video_bucket("mended.error.json") is not None

    corrected = stack.upload("mended.png", PORTRAIT.read_bytes())
    event = stack.event(
        lambda e: e["detail-type"] == "Video Ready" and e["detail"]["job"]["stem"] == "mended"
    )

    assert corrected.version_id in json.dumps(event["detail"]["inputs"])
    assert stack.video_bucket("mended.error.json") is None
    assert stack.video_bucket("mended.mp4") is not None


def test_an_aborted_execution_is_concluded_and_its_queued_request_cancelled(stack: Stack) -> None:
    stack.fault(match="aborted", do="stay_queued")
    job = stack.drop("aborted")
    until(lambda: stack.submissions("aborted"), "the submission")

    stack.client("stepfunctions").stop_execution(executionArn=stack.execution_arn(job))
    event = stack.event_of(job)

    assert event["detail-type"] == "Video Failed"
    assert_follows_schema(event)
    assert event["resources"] == [stack.execution_arn(job)]
    assert event["detail"]["error"]["code"] == "ExecutionAborted"
    (submission,) = stack.submissions("aborted")
    assert submission["cancelled"]
    assert event["detail"]["render"]["cancelled"]
    assert event["detail"]["render"]["request_id"] == submission["request_id"]
    assert error_file(stack, "aborted")["error"]["code"] == "ExecutionAborted"
    assert stack.ended(job) == "ABORTED"
    assert terminal_events(stack, job) == ["Video Failed"]


@pytest.mark.parametrize(
    "fault", [{"do": "reset_after"}, {"status": 503, "when": "after"}], ids=["reset", "503"]
)
def test_an_unclear_submission_is_never_sent_again(
    stack: Stack, fault: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    stem = f"unclear-{request.node.callspec.id}".lower()
    stack.fault(match=stem, at="submit", **fault)
    job = stack.drop(stem)

    event = stack.event_of(job)

    assert event["detail"]["error"]["code"] == "SubmissionUnclear"
    assert "dashboard" in event["detail"]["error"]["advice"]
    (submission,) = stack.submissions(stem)
    assert submission["accepted"]
    tried = event["detail"]["render"]["attempts"][-1]
    assert (tried["provider"], tried["outcome"]) == ("runcomfy", "SubmissionUnclear")
    (run,) = (item for item in stack.ledger(f"job#{job}") if item["sk"]["S"] == "run#001")
    assert float(run["kept_usd"]["N"]) > 0


def test_an_unclear_submission_that_the_provider_lists_goes_on(stack: Stack) -> None:
    stack.fault(match="listed", at="submit", status=403)
    stack.fault("wavespeed", match="listed", at="submit", status=503, when="after")

    event = stack.event_of(stack.drop("listed"))

    assert event["detail-type"] == "Video Ready"
    (submission,) = stack.submissions("listed", "wavespeed")
    assert submission["request_id"] == event["detail"]["render"]["request_id"]


def test_an_execution_started_by_hand_changes_nothing(stack: Stack) -> None:
    ready = stack.event_of(stack.drop("by-hand"))
    stack.fault(match="hands-off", do="stay_queued")
    rendering = stack.drop("hands-off")
    until(lambda: stack.submissions("hands-off"), "the submission")
    states, machine = stack.client("stepfunctions"), stack.environment["STATE_MACHINE_ARN"]
    given = [
        states.describe_execution(executionArn=stack.execution_arn(job))["input"]
        for job in (ready["detail"]["job"]["id"], rendering)
    ]
    before = stack.ledger("job#"), stack.all_files()

    for number, text in enumerate((*given, "{}", '{"id": 7}', '"anna"')):
        states.start_execution(stateMachineArn=machine, name=f"foreign-{number}", input=text)
    assert {stack.ended(f"foreign-{number}") for number in range(5)} == {"FAILED"}
    until(lambda: "foreign-0" in stack.all_logs(), "conclude's line in the log")

    assert (stack.ledger("job#"), stack.all_files()) == before
    assert terminal_events(stack, ready["detail"]["job"]["id"]) == ["Video Ready"]
    assert terminal_events(stack, rendering) == []
    stack.client("stepfunctions").stop_execution(executionArn=stack.execution_arn(rendering))
    stack.event_of(rendering)


def test_a_page_that_is_called_a_video_leaves_nothing_behind(stack: Stack) -> None:
    """Nothing but the bytes shows what it is: the upload has begun by then, and is given up."""
    html: dict[str, Any] = {"do": "html_page", "headers": {"Content-Type": "video/mp4"}}
    stack.fault(match="disguise", at="download", times=None, **html)

    event = stack.event_of(stack.drop("disguise"))

    assert event["detail"]["error"]["code"] == "ResultRefused"
    assert stack.video_bucket("disguise.mp4") is None
    unfinished = stack.client("s3").list_multipart_uploads(Bucket=stack.environment["VIDEO_BUCKET"])
    assert "disguise.mp4" not in [upload["Key"] for upload in unfinished.get("Uploads", [])]


def test_half_a_pair_is_announced_when_its_time_is_over(stack: Stack) -> None:
    stack.upload("lonely.mp3", SPEECH.read_bytes())

    event = stack.event(
        lambda e: e["detail-type"] == "Upload Incomplete" and e["detail"]["job"]["stem"] == "lonely"
    )

    assert_follows_schema(event)
    assert event["detail"]["missing"] == ["image"]
    assert stack.submissions("lonely") == []
    assert event["detail"]["message"] in stack.notice_of("Upload incomplete: lonely")


def test_other_stacks_find_the_bus(stack: Stack) -> None:
    exports = stack.client("cloudformation").list_exports()["Exports"]
    found = {it["Name"]: it["Value"] for it in exports}

    for export, parameter in (
        ("dropreel-EventBusName", "/dropreel/event-bus-name"),
        ("dropreel-EventBusArn", "/dropreel/event-bus-arn"),
    ):
        stored = stack.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        assert stored == found[export]
        assert stored.endswith(stack.environment["EVENT_BUS"])


def test_no_secret_is_in_any_log_history_event_or_file(stack: Stack) -> None:
    """Runs last: it reads what all the jobs above left behind, and one of each of its own."""
    stack.event_of(stack.drop("discreet"))
    stack.fault(match="loud", at="submit", status=401)
    loud = stack.event_of(stack.drop("loud"))["detail-type"].capitalize()

    left = {
        "logs": stack.all_logs(),
        "histories": stack.all_histories(),
        "events": json.dumps(stack.all_events()),
        "events for display": json.dumps(stack.displayed()),
        "files": stack.all_files(),
        "notices": stack.notice_of("Video ready: discreet") + stack.notice_of(f"{loud}: loud"),
    }

    stack.open_again("runcomfy")  # the refused token has closed it

    # The jobs did leave their traces, in each place: else this test would see nothing.
    assert "discreet" in left["logs"]
    for place in ("histories", "events", "events for display", "files", "notices"):
        assert "discreet" in left[place], place
    for place, text in left.items():
        for secret in (STANDIN_TOKEN, "X-Amz-Signature", "X-Amz-Security-Token", "/videos/"):
            assert secret not in text, f"{secret} is in the {place}"


def test_the_layers_fit_into_a_function_and_carry_their_licences(stack: Stack) -> None:
    assert 100_000_000 < layers.unzipped_bytes(BUILD) < layers.MAX_UNZIPPED_BYTES
    assert layers.has_licences(BUILD)
