"""An unclear submission: it is looked up, adopted if it is found, and never sent again."""

from datetime import timedelta

import pytest

from dropreel.model.errors import SubmissionUnclear
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import NextAttempt, Submission
from dropreel.model.provider import Lookup, Unreachable
from dropreel.render.lookup import CLOCK_SKEW, LOOK_WAIT_SECONDS
from dropreel.render.submission import CALL_LIFE_SECONDS
from tests.support.render_fakes import (
    AUDIO,
    JOB,
    NOON,
    PLAN,
    SENT_AUDIO,
    SENT_IMAGE,
    TICKET,
    WAVESPEED,
    MemoryLedger,
    ScriptedProvider,
)
from tests.support.submission_bench import UNCLEAR, Bench, FakeUploads

PLAN_AT_WAVESPEED = PLAN.model_copy(update={"route": (WAVESPEED,)})
NOTHING = Lookup(listed=0, readable=0)
FOUND = Lookup(request_id="pred-1", listed=1, readable=1)
UNREACHABLE = Unreachable("WaveSpeed answered with an error (503).")


def bench_of(*lookups: Lookup | Exception, uploads: FakeUploads | None = None) -> Bench:
    """WaveSpeed gives no answer to a submission, and its list has these."""
    wavespeed = ScriptedProvider("wavespeed", submissions=[UNCLEAR, "again"], lookups=lookups)
    return Bench(
        ScriptedProvider(), wavespeed, plan=PLAN_AT_WAVESPEED, uploads=uploads or FakeUploads()
    )


def is_accepted(submission: Submission) -> bool:
    return submission.ticket is not None


@pytest.mark.parametrize("misses", range(len(LOOK_WAIT_SECONDS)))
def test_request_that_is_found_is_adopted(misses: int) -> None:
    missed: list[Lookup | Exception] = [NOTHING, UNREACHABLE, NOTHING]
    bench = bench_of(*missed[:misses], FOUND)

    adopted = bench.submit_until(is_accepted)

    assert adopted.ticket
    assert (adopted.ticket.request_id, adopted.ticket.submitted_at) == ("pred-1", NOON)
    assert bench.attempt.ticket == adopted.ticket
    assert bench.submit().ticket == adopted.ticket  # called again with what it was told first
    assert [ticket for _, ticket in bench.recorded] == [adopted.ticket]
    assert bench.waited_seconds == sum(LOOK_WAIT_SECONDS[: misses + 1])
    assert len(bench.wavespeed.submitted) == 1


def test_look_is_for_the_files_and_the_time_of_the_submission() -> None:
    bench = bench_of(FOUND)
    bench.submit_until(is_accepted)

    [(endpoint, urls, since, until, known)] = bench.wavespeed.looked_for

    assert endpoint == WAVESPEED.endpoint
    assert len(urls) == 2
    for url, sent in zip(urls, (SENT_IMAGE, SENT_AUDIO), strict=True):
        assert f"/{sent.key}?versionId={sent.version_id}&" in url
    assert (since, known) == (NOON - CLOCK_SKEW, set())
    assert until == NOON + timedelta(seconds=CALL_LIFE_SECONDS) + CLOCK_SKEW


def test_deleted_upload_hides_no_request_that_was_sent() -> None:
    uploads = FakeUploads()
    bench = bench_of(FOUND, uploads=uploads)
    unclear = bench.submit()
    uploads.gone = (AUDIO, SENT_AUDIO)

    assert bench.submit(unclear.next).ticket


@pytest.mark.parametrize(
    ("lookup", "words"),
    [
        (
            NOTHING,
            "had no request of that time (wavespeed-ai/wan-2.2/speech-to-video, 11:59 to 12:",
        ),
        (
            Lookup(listed=3, readable=1),
            "had 3 requests of that time and did not show the files of 2 (",
        ),
        (
            Lookup(listed=500, readable=500, read_of_more=500),
            "had 500 requests of that time and only the newest 500 of all were read (",
        ),
        (
            Lookup(listed=0, readable=0, read_of_more=500),
            "had no request of that time and only the newest 500 of all were read (",
        ),
        (
            Lookup(listed=9, readable=8, read_of_more=500),
            "had 9 requests of that time and did not show the files of 1"
            " and only the newest 500 of all were read (",
        ),
        (Lookup(listed=1, readable=1), "had 1 request of that time and none with this job's files"),
        (UNREACHABLE, "gave no answer (WaveSpeed answered with an error (503))."),
    ],
)
def test_request_that_is_not_found_stays_unclear(lookup: Lookup | Exception, words: str) -> None:
    bench = bench_of(lookup)

    with pytest.raises(SubmissionUnclear, match="ReadTimeout") as raised:
        bench.submit_until(is_accepted)

    list_had = "WaveSpeed's list of requests was read 4 times. The last time, it "
    assert f"{list_had}{words}" in raised.value.message
    assert bench.waited_seconds == 120
    assert bench.attempt.state is AttemptState.BEGUN
    assert len(bench.wavespeed.submitted) == 1


def test_attempt_of_a_call_that_died_is_looked_up_when_the_call_must_be_over() -> None:
    bench = bench_of(NOTHING, FOUND)
    bench.ledger.begin(JOB.id, NextAttempt(), WAVESPEED, NOON)

    waiting = bench.submit()
    assert waiting.wait_seconds == CALL_LIFE_SECONDS
    assert bench.wavespeed.looked_for == []

    bench.clock.pass_seconds(waiting.wait_seconds)
    assert bench.submit(waiting.next).wait_seconds == LOOK_WAIT_SECONDS[1]
    assert bench.submit(waiting.next).ticket
    assert bench.wavespeed.submitted == []


def test_request_of_an_earlier_attempt_is_not_adopted_for_another() -> None:
    bench = bench_of(FOUND)
    ledger = bench.ledger
    ledger.begin(JOB.id, NextAttempt(), WAVESPEED, NOON)
    ledger.confirm(
        JOB.id, TICKET.model_copy(update={"provider": "wavespeed", "request_id": "lost-1"})
    )

    bench.submit_until(is_accepted, NextAttempt(attempt=2))

    [(*_, known)] = bench.wavespeed.looked_for
    assert known == {"lost-1"}


def test_two_looks_at_once_make_one_ticket() -> None:
    class Overtaken(ScriptedProvider):
        def find(self, *asked: object) -> Lookup:
            if not tickets:
                tickets.append(None)
                tickets.append(bench.submit(unclear.next).ticket)
                return Lookup(request_id="pred-2", listed=2, readable=2)
            return FOUND

    tickets: list[object] = []
    bench = bench_of()
    bench.wavespeed = Overtaken("wavespeed", submissions=[UNCLEAR], lookups=())
    unclear = bench.submit()

    assert bench.submit(unclear.next).ticket == tickets[-1] == bench.attempt.ticket


def test_look_that_is_overtaken_by_another_looks_for_the_same_request() -> None:
    class Overtaken(MemoryLedger):
        def attempts(self, job_id: str) -> tuple[Attempt, ...]:
            if not tickets:
                tickets.append(None)
                tickets.append(bench.submit(unclear.next).ticket)
            return super().attempts(job_id)

    tickets: list[object] = []
    bench = bench_of(FOUND)
    bench.ledger = Overtaken()
    unclear = bench.submit()

    assert bench.submit(unclear.next).ticket == tickets[-1]
    assert [known for *_, known in bench.wavespeed.looked_for] == [set(), set()]


@pytest.mark.parametrize("cancels", [True, False])
def test_run_that_was_stopped_meanwhile_is_cancelled(cancels: bool) -> None:
    bench = bench_of()
    bench.wavespeed = ScriptedProvider(
        "wavespeed", submissions=[UNCLEAR], lookups=[FOUND], cancels=cancels
    )
    unclear = bench.submit()
    bench.ledger.close(JOB, NOON)

    bench.submit(unclear.next)

    assert bench.wavespeed.cancelled == ["pred-1"]
    assert bench.attempt.state is (AttemptState.LOST if cancels else AttemptState.ACCEPTED)
