"""An exception costs the row that raises it; if every row raises it, the job is at fault and the run stops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.dispatcher_jobs import ROWS, NotingJob, pool_of, streamed
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.corpus.errors import LimbeckError

pytestmark = pytest.mark.timeout(240)
PARTS = 4


@pytest.fixture(scope="module", autouse=True)
def cluster(ray_address: str) -> Iterator[None]:
    with connected(ClusterConfig(address=ray_address)):
        yield


@pytest.mark.parametrize("concurrent", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", [pytest.param(0, marks=pytest.mark.slow), ROWS - 1])
def test_a_row_that_raises_costs_that_row_and_no_restart(tmp_path: Path, concurrent: bool, row: int) -> None:
    job = NotingJob(tmp_path, victim=("part-00002", row), fault="raise", concurrent=concurrent, seconds=0.02)
    with pool_of(tmp_path, parts_in_flight=3) as pool:
        found = streamed(pool, [job], parts=PARTS)
    rows = job.published()
    assert sorted((each["part"], each["row"]) for each in rows) == [
        (f"part-{part:05d}", number) for part in range(PARTS) for number in range(ROWS)
    ]
    (failed,) = [each for each in rows if each["error"]]
    assert (failed["part"], failed["row"]) == ("part-00002", row)
    assert "it raised an error on this row" in failed["error"] and "a token that no vocabulary has" in failed["error"]
    assert [report.part for report in found.reports if report.failed_rows] == ["part-00002"]
    assert not any(report.deaths for report in found.reports)
    assert len({call["process"] for call in job.calls()}) == 1 and len(job.calls()) == PARTS + 4  # halves: 2 and 2, 1 and 1


def test_an_error_that_every_row_raises_stops_the_run(tmp_path: Path) -> None:
    job = NotingJob(tmp_path, victim=("part-00001", None), fault="raise", seconds=0.02)
    with pool_of(tmp_path) as pool, pytest.raises(LimbeckError, match="stage failed on part-00001: .*a token that no vocabulary"):
        streamed(pool, [job], parts=PARTS)
    assert not (job.out / "part-00001.parquet").exists(), "nothing is published of it"
