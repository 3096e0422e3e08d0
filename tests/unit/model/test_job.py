"""A job's names follow from its content."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dropreel.model.job import MAX_KEY_BYTES, Input, Job, Role, error_key, job_id, slug

MODEL = "wan-2.2-speech-to-video"

# Few letters, so that equal and nearly equal inputs come up often; the separators that a careless
# digest would trip over among them.
texts = st.text(alphabet='ab \n",[]', min_size=1, max_size=4)
input_sets = st.lists(
    st.builds(
        Input,
        role=st.sampled_from(Role),
        key=texts,
        version_id=texts,
        size_bytes=st.just(1),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda given: given.key,
).map(tuple)


@given(st.text(), input_sets)
def test_every_job_id_is_a_name_that_step_functions_takes(
    stem: str, inputs: tuple[Input, ...]
) -> None:
    assert re.fullmatch("[0-9a-z-]{1,80}", job_id(stem, MODEL, inputs))


@given(input_sets, input_sets)
def test_job_ids_are_equal_exactly_when_the_pinned_inputs_are(
    one: tuple[Input, ...], other: tuple[Input, ...]
) -> None:
    same_id = job_id("anna", MODEL, one) == job_id("anna", MODEL, other)

    assert same_id == (set(one) == set(other))
    assert job_id("anna", MODEL, one, dry_run=True) != job_id("anna", MODEL, other)


@given(input_sets.flatmap(lambda inputs: st.tuples(st.just(inputs), st.permutations(inputs))))
def test_the_order_of_the_inputs_does_not_matter(
    given_inputs: tuple[tuple[Input, ...], list[Input]],
) -> None:
    inputs, shuffled = given_inputs

    assert job_id("anna", MODEL, inputs) == job_id("anna", MODEL, tuple(shuffled))


def test_another_model_is_another_job() -> None:
    pinned = Input(role=Role.IMAGE, key="inbox/a.png", version_id="v1", size_bytes=1)

    assert job_id("a", MODEL, (pinned,)) != job_id("a", "another-model", (pinned,))


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("anna", "anna"),
        ("Anna Müller (final)", "anna-muller-final"),
        ("anna.v2+50%", "anna-v2-50"),
        ("--anna--", "anna"),
        ("李娜", "job"),
        ("🎤", "job"),
        ("", "job"),
        ("x" * 200, "x" * 63),
        ("x" * 62 + " y", "x" * 62),
    ],
)
def test_slug_keeps_what_a_reader_recognises(stem: str, expected: str) -> None:
    assert slug(stem) == expected


@given(st.text(max_size=20), st.text(alphabet="aé😀", min_size=300, max_size=1100))
def test_the_error_file_of_the_longest_upload_still_has_a_key(folder: str, stem: str) -> None:
    key = error_key(folder, stem)

    assert len(key.encode()) <= MAX_KEY_BYTES
    assert key.endswith(".error.json")


def job_of(stem: str, digest: str = "0123456789abcdef", folder: str = "team/") -> Job:
    return Job(
        id=f"{slug(stem)}-{digest}",
        bucket="uploads",
        folder=folder,
        stem=stem,
        model=MODEL,
        inputs=(),
    )


def keys_of(job: Job) -> tuple[str, ...]:
    return (
        job.video_key,
        job.manifest_key,
        job.error_key,
        job.check_key,
        job.own_video_key,
        job.own_manifest_key,
    )


# Stems made of what we put into keys ourselves, and some that are too long for a key's ending.
stems = st.one_of(
    st.text(max_size=8),
    st.lists(
        st.sampled_from(["anna", ".error", ".ERROR", ".check", "_", ".json", ".mp4", "\n", "-"])
        | st.sampled_from([f".{job_of('anna').id}", f".{job_of('anna.error').id}"]),
        max_size=4,
    ).map("".join),
    st.sampled_from(["", "a", "b", "é", "aa"]).map(lambda end: "x" * 1004 + end),
)


@given(stems, stems)
@example("anna", "anna.error")
@example("anna", "anna.check")
@example("anna.error", "anna.error_")
@example("anna.error\n", "anna.error\n_")
def test_no_two_stems_share_a_key(one: str, other: str) -> None:
    shared = set(keys_of(job_of(one))) & set(keys_of(job_of(other)))

    assert bool(shared) == (one == other)


@given(stems)
def test_no_two_files_of_a_job_share_a_key_and_s3_takes_each(stem: str) -> None:
    keys = keys_of(job_of(stem))

    assert len(set(keys)) == len(keys)
    assert max(len(key.encode()) for key in keys) <= MAX_KEY_BYTES


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("anna", "anna"),
        ("anna.v2", "anna.v2"),
        ("anna_error", "anna_error"),
        ("anna.error", "anna.error_"),
        ("anna.check", "anna.check_"),
        ("anna.Error_", "anna.Error__"),
        ("anna.anna-0123456789abcdef", "anna.anna-0123456789abcdef_"),
    ],
)
def test_files_are_called_like_the_stem_unless_that_is_a_name_of_ours(stem: str, name: str) -> None:
    job = job_of(stem)

    assert (job.video_key, job.manifest_key) == (f"team/{name}.mp4", f"team/{name}.json")
    assert job.own_video_key == f"team/{name}.{job.id}.mp4"


def test_an_error_file_lies_where_the_video_would() -> None:
    assert error_key("team/", "anna") == "team/anna.error.json"
