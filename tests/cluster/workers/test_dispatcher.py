"""Several parts in flight on one worker: a fault costs its row, deaths are told once, and the seconds add up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.dispatcher_jobs import ROWS, NotingJob, pool_of, streamed
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.corpus.errors import LimbeckError

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", autouse=True)
def cluster(ray_address: str) -> Iterator[None]:
    with connected(ClusterConfig(address=ray_address)):
        yield


def overlapping(job: NotingJob) -> int:
    """How many calls were under way at once, at most."""
    events = [(call["time"], 1) for call in job.calls("begin")] + [(call["time"], -1) for call in job.calls("end")]
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kill", "it was killed or crashed"),
        pytest.param("engine", "its engine exited: an illegal memory access", marks=pytest.mark.slow),
        pytest.param("hang", "it made no progress for 4 s and was killed", marks=pytest.mark.slow),
    ],
)
def test_a_row_that_ends_its_worker_beside_others_costs_that_row(tmp_path: Path, fault: str, words: str) -> None:
    job = NotingJob(tmp_path, victim=("part-00002", 1), fault=fault, together=4)
    with pool_of(tmp_path, parts_in_flight=4, stall_seconds=4.0 if fault == "hang" else 60.0) as pool:
        found = streamed(pool, [job], parts=8)
    rows = job.published()
    assert sorted((row["part"], row["row"]) for row in rows) == [(f"part-{n:05d}", row) for n in range(8) for row in range(ROWS)]
    (failed,) = [row for row in rows if row["error"]]
    assert (failed["part"], failed["row"]) == ("part-00002", 1) and words in failed["error"]
    assert sorted(report.part for report in found.reports) == [f"part-{number:05d}" for number in range(8)], "each told once"
    assert [report.part for report in found.reports if report.failed_rows] == ["part-00002"]
    begun = job.calls()
    first = begun.index(next(call for call in begun if call["call"].startswith("part-00002")))
    assert first < 4, "others were in flight when it struck first"
    # a death beside others, two alone, and one for each halving down to the row: every one is one restart, told by one part.
    # One that hangs is noticed when the others have no more to do, and is alone by then
    deaths = [death for report in found.reports for death in report.deaths]
    assert len(deaths) == (fault != "hang") + 2 + 2 and all(words in death for death in deaths)
    assert len({call["process"] for call in [*begun, *job.calls("warm")]}) == 1 + len(deaths)
    assert len(job.calls("warm")) == len(deaths), "one warm-up a restart"
    tries = [call for call in begun if call["call"].startswith("part-00002")]
    for call in tries[1:]:
        others = [other for other in begun if other["process"] == call["process"] and other["call"] != call["call"]]
        ends = {other["call"]: other["time"] for other in job.calls("end") if other["process"] == call["process"]}
        before = [other for other in others if other["time"] <= call["time"]]
        assert all(ends[other["call"]] <= call["time"] for other in before), "the suspect is taken again alone"


@pytest.mark.slow
def test_an_innocent_part_beside_a_death_is_not_bisected(tmp_path: Path) -> None:
    job = NotingJob(tmp_path, victim=("part-00000", 0), strikes=2, together=4)
    with pool_of(tmp_path, parts_in_flight=4) as pool:
        found = streamed(pool, [job], parts=4)
    assert not [row for row in job.published() if row["error"]] and len(job.published()) == 4 * ROWS
    assert sum(len(report.deaths) for report in found.reports) == 2
    assert all(call["rows"] == ROWS for call in job.calls()), "nobody was bisected: one death beside others, one alone"


@pytest.mark.slow
def test_a_worker_that_cannot_load_again_stops_the_run(tmp_path: Path) -> None:
    job = NotingJob(tmp_path, victim=("part-00000", 0), loads=False)
    with pool_of(tmp_path, parts_in_flight=3) as pool, pytest.raises(LimbeckError, match=r"died 3 times.*no memory is left"):
        streamed(pool, [job], parts=6)


def test_parts_overlap_and_the_sums_are_exact(tmp_path: Path) -> None:
    batching = NotingJob(tmp_path, stage="draw", together=4)
    single = NotingJob(tmp_path, stage="score", concurrent=False, seconds=0.05)
    with pool_of(tmp_path, parts_in_flight=4) as pool:
        found = streamed(pool, [batching, single], parts=12)
    assert overlapping(batching) == 4
    assert overlapping(single) == 1 and len({call["thread"] for call in single.calls()}) == 1
    reports = found.reports
    assert sum(report.output_tokens for report in reports) == 2 * 12 * ROWS
    assert sum(report.model_seconds for report in reports) == pytest.approx(2 * 12 * ROWS / 1000)
    work = sum(report.seconds for report in reports)
    assert 12 * (0.3 / 4) <= work <= found.seconds, "seconds side by side are shared out"


def test_one_part_at_a_time_where_nothing_batches_across_callers(tmp_path: Path) -> None:
    job = NotingJob(tmp_path, concurrent=False, seconds=0.05)
    with pool_of(tmp_path) as pool:
        found = streamed(pool, [job], parts=5)
    assert overlapping(job) == 1
    assert sum(report.seconds for report in found.reports) <= found.seconds


def test_critics_of_their_own_score_while_more_is_drawn(tmp_path: Path) -> None:
    scored = tmp_path / "score.calls.jsonl"
    draw = NotingJob(tmp_path, stage="draw", concurrent=False, waits=("part-00005", scored))
    score = NotingJob(tmp_path, stage="score", concurrent=False, pool="critics", victim=("part-00001", 3), strikes=1)
    with pool_of(tmp_path, critics={"workers": 1, "cpus_per_worker": 0.1}) as pool:
        found = streamed(pool, [draw, score], parts=6)
    assert len(draw.published()) == len(score.published()) == 6 * ROWS
    assert not {call["process"] for call in draw.calls()} & {call["process"] for call in score.calls()}
    assert score.calls()[0]["time"] < draw.calls("end")[-1]["time"], "the stages overlap"
    assert {report.pool for report in found.reports if report.stage == "score"} == {"critics"}
    assert sum(len(report.deaths) for report in found.reports) == 1
