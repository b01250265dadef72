"""The contract of students: requirements of training, and the training itself. Imports neither torch nor any trainer."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from limbeck.cluster.placement.demand import Trainer
from limbeck.corpus.config import MOST_PROCESSES
from limbeck.corpus.kinds import Kind
from limbeck.corpus.parts import publishing, write_json

if TYPE_CHECKING:
    from limbeck.cluster.training import Placement

METRICS_FILE = "training.json"
"""File with the metrics of a training, in the student's folder."""


@dataclass(frozen=True)
class CachedTeacher:
    """What a student needs of its teacher before it trains: the `top_k` most likely tokens at every label of its rows.

    `dtype` is that of the stored log-probabilities. Rows longer than `max_sequence_tokens` are not trained, so not drawn.
    """

    top_k: int
    dtype: Literal["float16", "float32"]
    max_sequence_tokens: int


class StudentConfig(Kind):
    """The base of every student's config. A kind must implement `train`; the defaults fit a training without cost."""

    family: ClassVar[str] = "student"
    default_kind: ClassVar[str | None] = "sft"

    extra: ClassVar[str | None] = None
    """The extra of this distribution that it needs (`pip install 'limbeck[...]'`); None: the core is enough."""

    columns: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    """The columns of the dataset that it trains on."""

    workers: int = Field(1, ge=1, le=MOST_PROCESSES, description="training processes")

    @property
    def passes(self) -> float:
        """Passes of each row through the model, for the estimate."""
        return 1.0

    @property
    def models(self) -> Mapping[str, str]:
        """The models that it loads besides the teacher: key under the student → Hugging Face id, folder or embedded name."""
        return {}

    def base_model(self, teacher: str) -> str:
        """The model that it starts from."""
        return teacher

    def weights_share(self, teacher: str) -> float:
        """The share of the base's weights that it starts with."""
        return 1.0

    def layers_from(self, teachers: int) -> int:
        """How many layers the student has, of a teacher with this many; raises LimbeckError if it needs more."""
        return teachers

    @property
    def text_tokens(self) -> int:
        """Tokens of text that it is trained on beside the dataset, at most, for the estimate."""
        return 0

    @property
    def needs_documents(self) -> bool:
        """Whether it reads the documents of the run's sources."""
        return False

    def trainer(self, teacher: str, gpus: bool) -> Trainer | None:
        """Memory of each training process (`gpus`: whether it has a GPU); None: it trains in the driver's process."""
        return None

    def problems(self, key: str, teacher: Path, chat: bool) -> list[str]:
        """Reasons why it cannot learn from this teacher's text, one sentence each; `chat`: the rows are conversations.

        `key` is its section of the recipe. Whether its models exist is checked elsewhere.
        """
        return []

    @property
    def cached_teacher(self) -> CachedTeacher | None:
        """The teacher's log-probabilities that it needs before it trains; None: it needs none."""
        return None

    def warm_up(self) -> None:
        """Import in the background what `train` needs on the driver."""
        return

    @abstractmethod
    def train(
        self,
        dataset: Path,
        teacher: Path,
        out: Path,
        seed: int,
        documents: Path | None = None,
        placement: "Placement | None" = None,
    ) -> dict[str, Any]:
        """Train on `dataset`, publish the model folder at `out`, and return the metrics, which are also its `training.json`.

        `dataset` is a Hugging Face folder with `columns`, `teacher` the model folder of the round's teacher, `documents` the
        train sources. The same call resumes an interrupted training, and leaves a published student unchanged. Metrics that are
        reported if present: steps, loss_first, loss_last, train_seconds, warnings. Raises LimbeckError if it cannot be trained.

        A student with a `cached_teacher` must also take `teacher_logprobs`, the folder that holds it
        (`students.training.teacher_cache`); others are not given one.
        """


@contextmanager
def publishing_student(out: Path, metrics: Mapping[str, Any]) -> Iterator[Path]:
    """Yield an empty folder for a student's files; if the block succeeds, publish it at `out` with its metrics."""
    with publishing(out) as folder:
        folder.mkdir()
        yield folder
        write_json(folder / METRICS_FILE, dict(metrics))
