"""Intake, in whatever order files are dropped and told of."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dropreel.inbox.messages import SeenUpload
from dropreel.inbox.pairing import name_of
from tests.support.intake_fakes import Parsed, World, bases

SAID: dict[str, Parsed] = {
    "inbox/team/_defaults.json": {"image": "../faces/a.png", "resolution": "720p"},
    "inbox/team/anna.json": {
        "model": "wan-2.6-flash-image-to-video",
        "audio": "../voices/monday.mp3",
    },
    "inbox/team/anna.txt": "She smiles.",
    "inbox/faces/a.png": "picture",
    "inbox/voices/monday.mp3": "voice",
}


@given(st.permutations([*SAID, *SAID]), st.randoms(use_true_random=False))
def test_job_of_five_files_starts_once_in_any_order_of_events(
    order: list[str], chance: random.Random
) -> None:
    """A key's first place in the order drops it, the second tells of it; time passes between."""
    world = World()
    dropped: dict[str, SeenUpload] = {}
    for key in order:
        if key not in dropped:
            dropped[key] = world.drop(key, SAID[key])
        else:
            world.tell(dropped[key])
        world.pass_time(minutes=chance.choice([0, 0.1, 2]))
    world.pass_time(minutes=30)
    job = world.job

    world.play(("team/_defaults.json", {"image": "../faces/a.png", "seed": 7}))
    world.tell(*chance.sample(list(dropped.values()), k=len(dropped)))
    world.pass_time(minutes=120)

    assert world.job == job
    assert {given.key for given in job.inputs} == set(SAID)
    assert (job.prompt, job.options) == ("She smiles.", {"resolution": "720p"})
    assert not world.announced
    assert not world.messages


moves = st.lists(
    st.tuples(
        st.sampled_from(["drop", "tell", "delete"]),
        st.integers(0, 2),
        st.sampled_from(["png", "mp3"]),
    ),
    max_size=25,
)


@given(
    st.lists(bases, min_size=1, max_size=3, unique=True), moves, st.randoms(use_true_random=False)
)
def test_any_order_of_events_starts_each_pair_once_and_loses_none(
    bases: list[str], moves: list[tuple[str, int, str]], chance: random.Random
) -> None:
    """Uploads, deletions and events in any order, then each event at least once more."""
    world = World()
    told: list[SeenUpload] = []
    pairs_seen: list[set[tuple[str, str]]] = []

    def pair_of(base: str) -> set[tuple[str, str]]:
        both = [world.uploads.get(f"{base}.{ending}") for ending in ("png", "mp3")]
        return {(upload.key, upload.version_id) for upload in both if upload}

    def tell(seen: SeenUpload) -> None:
        name = name_of(seen.key)
        assert name is not None
        pair = pair_of(name.base)
        version = (seen.key, seen.version_id)
        is_news = version in pair and version not in world.noted
        if is_news and len(pair) == 2 and pair not in pairs_seen:
            pairs_seen.append(pair)
        world.tell(seen)

    for move, which, ending in moves:
        key = f"inbox/{bases[which % len(bases)]}.{ending}"
        if move == "drop":
            told.append(world.drop(key))
        elif move == "delete":
            world.uploads.pop(key, None)
        elif told:
            tell(chance.choice(told))
    told *= 2
    chance.shuffle(told)
    for seen in told:
        tell(seen)

    assert sorted(map(sorted, world.pinned)) == sorted(map(sorted, pairs_seen))
    assert len({job.id for job in world.jobs.values()}) == len(pairs_seen)
    for base in bases:
        pair = pair_of(f"inbox/{base}")
        assert len(pair) < 2 or pair in world.pinned


@given(bases, st.permutations(["png", "mp3", "mp3", "png", "mp3"]))
def test_events_of_one_pair_in_any_order_start_one_job(base: str, order: list[str]) -> None:
    world = World()
    seen = {ending: world.drop(f"inbox/{base}.{ending}") for ending in ("png", "mp3")}

    world.tell(*(seen[ending] for ending in order))
    world.pass_time(minutes=120)

    assert world.pinned == [{(f"inbox/{base}.png", "v1"), (f"inbox/{base}.mp3", "v2")}]
    assert not world.announced


TEAMS: dict[str, dict[str, Parsed]] = {
    team: {
        "_defaults.json": {"image": f"../{other}/anna.png"},
        "anna.png": "picture",
        "anna.mp3": "voice",
        "bert.png": "picture",
        "bert.mp3": "voice",
        "half.mp3": "voice",
        "take.json": {"image": f"../{other}/anna.png", "audio": f"../{other}/anna.mp3"},
        "bert.json": {"audio": f"../{other}/half.mp3"},
        "deep/_defaults.json": {"image": f"../../{other}/bert.png"},
        "deep/carl.mp3": "voice",
    }
    for team, other in (("red", "blue"), ("blue", "red"))
}
FILES = [(team, name) for team, files in TEAMS.items() for name in files]


@given(
    st.permutations(FILES * 2), st.lists(st.sampled_from([0, 0.1, 20]), min_size=40, max_size=40)
)
def test_no_team_changes_the_jobs_of_another(
    order: list[tuple[str, str]], minutes: list[float]
) -> None:
    """In whatever order all of it is dropped and told of: as if the other team did not exist."""

    def outcome(teams: set[str]) -> list[object]:
        world, dropped = World(), dict[tuple[str, str], SeenUpload]()
        for (team, name), pause in zip(order, minutes, strict=True):
            if team in teams:
                if (team, name) in dropped:
                    world.tell(dropped[team, name])
                else:
                    dropped[team, name] = world.drop(f"inbox/{team}/{name}", TEAMS[team][name])
            world.pass_time(minutes=pause)
        world.pass_time(minutes=120)
        world.sweep()
        jobs = [
            (job.folder, job.stem, sorted(given.key for given in job.inputs), job.problems)
            for job in world.jobs.values()
        ]
        told = [(one.job.folder, one.job.stem, one.message) for one in world.announced]
        return [sorted(one for one in some if one[0].startswith("blue/")) for some in (jobs, told)]

    assert outcome({"red", "blue"}) == outcome({"blue"})
