"""An unclear submission is looked up where its provider lists requests, before a person is asked.

The attempt stays begun in the ledger until its request is found, so whatever dies here is repeated
by the next call, and nothing is sent again.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from dropreel.model.ledger import Attempt, Ledger
from dropreel.model.provider import Lookup, Provider, Unreachable

LOOK_WAIT_SECONDS = (5, 15, 40, 60)
"""Before each look: a few within two minutes. WaveSpeed's list is one to browse, not to poll."""

CLOCK_SKEW = timedelta(minutes=1)
"""Between our clock and the provider's."""


def adopt(
    sent: Attempt, sent_by: datetime, provider: Provider, urls: Collection[str], ledger: Ledger
) -> str | None:
    """Look for the attempt's request, and record it as accepted. None when that is done; else the
    end of a sentence that begins with "the list".

    `urls` are those of the files that were sent, signed at any time; the request left us before
    `sent_by`. A request of another attempt of the job is not taken for this one's.
    """
    since, until = sent.begun_at - CLOCK_SKEW, sent_by + CLOCK_SKEW
    others = {
        it.request_id
        for it in ledger.attempts(sent.job_id)
        if it.request_id and it.number != sent.number
    }
    try:
        found = provider.find(sent.endpoint, urls, since, until, others)
    except Unreachable as unreachable:
        return f"gave no answer ({str(unreachable).rstrip('.')})"
    if found.request_id is not None:
        # With the time of the submission: a second look makes the same ticket.
        ledger.confirm(sent.job_id, sent.ticket_for(found.request_id, sent.begun_at))
        return None
    return f"{_what_it_had(found)} ({sent.endpoint}, {since:%H:%M} to {until:%H:%M} UTC)"


def _what_it_had(found: Lookup) -> str:
    """That the job's files are not there is said only of a whole list that shows all files."""
    requests = f"{found.listed or 'no'} request{'s' * (found.listed > 1)}"
    unshown = found.listed - found.readable
    said = [f"had {requests} of that time"]
    if unshown:
        said.append(f"did not show the files of {unshown}")
    if found.read_of_more:
        said.append(f"only the newest {found.read_of_more} of all were read")
    if found.listed and len(said) == 1:
        said.append("none with this job's files")
    return " and ".join(said)
