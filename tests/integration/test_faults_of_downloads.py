"""What goes wrong with the finished video, one by one: deliver against the stand-ins.

Either the video arrives whole, or a named error says why not, and then the bucket is as it was:
called again when the fault has passed, the function delivers it after all.
"""

from collections.abc import Iterator, Mapping

import pytest

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import DropreelError, ResultRefused, ResultUnavailable
from dropreel.providers.download import GuardedTransport
from local.standin_videos import StandInsToo
from tests.support.fault_account import (
    KEY,
    RUNCOMFY,
    WAVESPEED,
    FaultAccount,
    Internet,
    Page,
    PublicHosts,
    Strike,
    assert_delivered_whole,
    assert_nothing_left,
    fault_account,
    ordered,
    public_hosts,
    worded,
)

CDN, EDGE, PRIVATE = "93.184.215.14", "2606:2800:21f:cb07::1", "10.0.0.7"
CDN_URL = f"https://cdn.example/v.mp4?{KEY}"

HTML = {"Content-Type": "text/html"}
VIDEO = {"Content-Type": "video/mp4"}
PAGE = "<!doctype html><title>Please wait</title>"

# Another try mends them, if they pass.
PASSING: Mapping[str, Strike] = {
    "403 expired": ordered(do="expired_url"),
    "404": ordered(status=404),
    "500": ordered(status=500),
    "502": ordered(status=502),
    "503": ordered(status=503),
    "504": ordered(status=504),
    "connection reset": ordered(reset=True),
    "cut at 0 %": ordered(do="cut_video", cut_percent=0),
    "cut at 50 %": ordered(do="cut_video", cut_percent=50),
    "cut at 99 %": ordered(do="cut_video", cut_percent=99),
    "wrong length, too long": ordered(declared_bytes=10_000_000),
    "chunked without length, cut at 50 %": ordered(do="no_length", cut_percent=50),
    "chunked without length, ends too early": ordered(do="no_length", declared_bytes=10_000),
}
# What is offered is no video, or not one that may be copied.
REFUSED: Mapping[str, Strike] = {
    "wrong length, too short": ordered(do="wrong_length"),
    "HTML page with status 200": ordered(do="html_page"),
    "HTML page that says it is a video": ordered(status=200, headers=VIDEO, body=PAGE),
    "zero-byte video": ordered(do="empty_video"),
    "zero-byte video, chunked": ordered(do="empty_video", chunked=True),
    "over the limit, as it says": ordered(do="oversize_video"),
}

# Where nothing may be fetched from, and how it may be written.
INSIDE: Mapping[str, str] = {
    "loopback": "https://127.0.0.1/v.mp4",
    "loopback by http": "http://127.0.0.1:9/v.mp4",
    "loopback by name": "https://localhost/v.mp4",
    "loopback as a number": "https://2130706433/v.mp4",
    "link-local": "https://169.254.169.254/latest/meta-data/",
    "private range 10": "https://10.0.0.1/v.mp4",
    "private range 172.16": "https://172.16.0.1/v.mp4",
    "private range 192.168": "https://192.168.0.1/v.mp4",
    "a name that leads inside": "https://inside.example/v.mp4",
    "IPv6 loopback": "https://[::1]/v.mp4",
    "IPv6 link-local": "https://[fe80::1]/v.mp4",
    "IPv6 private range": "https://[fd00:ec2::254]/v.mp4",
    "IPv6 form of loopback": "https://[::ffff:127.0.0.1]/v.mp4",
    "IPv6 form of link-local": "https://[::ffff:169.254.169.254]/v.mp4",
    "IPv6 form of a private range": "https://[::ffff:10.0.0.1]/v.mp4",
    "IPv6 form of a private range, 6to4": "https://[2002:a00:1::]/v.mp4",
    "IPv6 form of a private range, NAT64": "https://[64:ff9b::a00:1]/v.mp4",
    "http:": "http://edge.example/v.mp4",
    "file:": "file:///etc/passwd",
}
NAMED_BY_THE_RESULT = ("loopback", "link-local", "a name that leads inside", "http:", "file:")

each_provider = pytest.mark.parametrize("provider", [RUNCOMFY, WAVESPEED], ids=str)


@pytest.fixture(scope="module")
def module_account() -> Iterator[FaultAccount]:
    with fault_account() as account:
        yield account


@pytest.fixture
def account(module_account: FaultAccount) -> Iterator[FaultAccount]:
    with module_account.watched() as account:
        account.download_with(StandInsToo(account.origins))
        yield account


@pytest.fixture(scope="module")
def hosts() -> Iterator[PublicHosts]:
    with public_hosts("cdn.example", "edge.example") as hosts:
        yield hosts


@pytest.fixture
def public(account: FaultAccount, hosts: PublicHosts, monkeypatch: pytest.MonkeyPatch) -> Internet:
    """The internet, with the provider's videos on a public host: nobody is trusted any more."""
    account.download_with(GuardedTransport(tls=hosts.trust))
    standins = account.standins.values()
    return Internet(monkeypatch, hosts, standins, cdn=[CDN], edge=[EDGE], inside=[PRIVATE])


@each_provider
@pytest.mark.parametrize("strike", PASSING.values(), ids=PASSING)
def test_video_arrives_although_once_it_met(
    strike: Strike, provider: ProviderName, account: FaultAccount
) -> None:
    with strike(account, provider, "download", 1):
        ready = account.deliver(account.rendered(provider))

    assert_delivered_whole(account, provider, ready)


@each_provider
def test_video_arrives_chunked_without_length(
    provider: ProviderName, account: FaultAccount
) -> None:
    with ordered(do="no_length")(account, provider, "download", None):
        ready = account.deliver(account.rendered(provider))

    assert_delivered_whole(account, provider, ready)


@each_provider
@pytest.mark.parametrize(
    ("strike", "error"),
    [(strike, ResultUnavailable) for strike in PASSING.values()]
    + [(strike, ResultRefused) for strike in REFUSED.values()],
    ids=[*PASSING, *REFUSED],
)
def test_nothing_is_left_behind_by(
    strike: Strike, error: type[DropreelError], provider: ProviderName, account: FaultAccount
) -> None:
    render = account.rendered(provider)

    with strike(account, provider, "download", None), pytest.raises(error):
        account.deliver(render)
    assert_nothing_left(account)

    assert_delivered_whole(account, provider, account.deliver(render))


@each_provider
def test_nothing_is_left_behind_by_a_video_over_the_limit_that_does_not_say_so(
    provider: ProviderName, account: FaultAccount
) -> None:
    render = account.rendered(provider)
    limit_bytes = len(account.video(provider)) - 1
    account.download_with(StandInsToo(account.origins), limit_bytes)

    with (
        ordered(do="no_length")(account, provider, "download", None),
        pytest.raises(ResultRefused, match=f"larger than {limit_bytes}"),
    ):
        account.deliver(render)

    assert_nothing_left(account)


# Where it is fetched from


def offered_at(url: str) -> Strike:
    """The result names this URL."""
    return worded(
        runcomfy={"patch": {"output": {"video": url}}},
        wavespeed={"patch": {"data": {"outputs": [url]}}},
    )


def redirect(location: str) -> Page:
    return Page(302, headers={"Location": location})


@each_provider
def test_redirect_to_another_public_host_is_followed(
    provider: ProviderName, account: FaultAccount, public: Internet, hosts: PublicHosts
) -> None:
    video = account.video(provider)
    hosts.pages = {
        "cdn.example": [redirect(f"https://edge.example/there.mp4?{KEY}")],
        "edge.example": [Page(body=video)],
    }

    with offered_at(CDN_URL)(account, provider, "result", None):
        ready = account.deliver(account.rendered(provider))

    assert_delivered_whole(account, provider, ready)
    assert public.left_for == [CDN, EDGE]


@pytest.mark.parametrize("location", INSIDE.values(), ids=INSIDE)
def test_redirect_is_refused_that_leads_to(
    location: str, account: FaultAccount, public: Internet, hosts: PublicHosts
) -> None:
    """Whose video it is makes no difference any more: the host of the video redirects."""
    hosts.pages = {"cdn.example": [redirect(f"{location}?{KEY}")]}

    with (
        offered_at(CDN_URL)(account, RUNCOMFY, "result", None),
        pytest.raises(ResultRefused),
    ):
        account.deliver(account.rendered(RUNCOMFY))

    assert public.left_for == [CDN]
    assert "passwd" not in account.told
    assert_nothing_left(account)


@each_provider
@pytest.mark.parametrize(
    "url", [INSIDE[place] for place in NAMED_BY_THE_RESULT], ids=NAMED_BY_THE_RESULT
)
def test_result_is_refused_that_names(
    url: str, provider: ProviderName, account: FaultAccount, public: Internet
) -> None:
    with (
        offered_at(f"{url}?{KEY}")(account, provider, "result", None),
        pytest.raises(ResultRefused),
    ):
        account.deliver(account.rendered(provider))

    assert public.left_for == []
    assert_nothing_left(account)


@each_provider
def test_name_that_is_public_first_and_private_after_is_refused(
    provider: ProviderName, account: FaultAccount, public: Internet, hosts: PublicHosts
) -> None:
    """The connection breaks, and when it is made again the name leads inside."""
    video = account.video(provider)
    half = Page(body=video[: len(video) // 2], headers={"Content-Length": str(len(video))})
    hosts.pages = {"cdn.example": [half, Page(body=video)]}
    public.names["cdn"] = [CDN, PRIVATE]

    with (
        offered_at(CDN_URL)(account, provider, "result", None),
        pytest.raises(ResultRefused, match="not public"),
    ):
        account.deliver(account.rendered(provider))

    assert public.left_for == [CDN]
    assert_nothing_left(account)


@each_provider
def test_name_that_turns_private_between_check_and_connection_gains_nothing(
    provider: ProviderName, account: FaultAccount, public: Internet, hosts: PublicHosts
) -> None:
    """The address that was checked is the address that is connected to."""
    hosts.pages = {"cdn.example": [Page(body=account.video(provider))]}
    public.names["cdn"] = [CDN, PRIVATE]

    with offered_at(CDN_URL)(account, provider, "result", None):
        ready = account.deliver(account.rendered(provider))

    assert_delivered_whole(account, provider, ready)
    assert public.left_for == [CDN]
