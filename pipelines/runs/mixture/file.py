"""The command `limbeck mix`: a file that names datasets of runs and existing data, mixed into a new dataset folder."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines import recipe_files
from limbeck.pipelines.runs.mixture.components import Wanted, opened
from limbeck.pipelines.runs.mixture.config import MixtureConfig
from limbeck.pipelines.runs.mixture.facts import MixtureFacts
from limbeck.pipelines.runs.mixture.mixing import planned, write_mixture
from limbeck.pipelines.wording import sentences


def load(path: Path, settings: Sequence[str] = ()) -> MixtureConfig:
    """Read the file of a mixture; `settings` as in `--set components.chat.weight=2`. Raises LimbeckError with all problems."""
    if not path.is_file():
        raise LimbeckError(f"there is no file {path}; give the YAML file of a mixture (docs/mixtures.md)")
    data = recipes.interpolate(recipe_files.read(path, []))
    for setting in settings:
        recipes.apply_override(data, setting)
    try:
        return MixtureConfig.model_validate(data)
    except ValidationError as error:
        raise LimbeckError(f"{path}: {'; '.join(sentences(error, data))}") from error


def mix(config: MixtureConfig, out: Path) -> MixtureFacts:
    """Write the mixture as a dataset folder; raises LimbeckError if `out` exists, or a component is missing or too small."""
    if out.exists():
        raise LimbeckError(f"{out} already exists; choose another --out, or remove it first")
    wanted = Wanted(config.rows)
    components = [opened(component, wanted, None, 0) for component in config.components]
    plan = planned(config.name, config.seed, config, components)
    return write_mixture(out, plan, once="choose another --out, or remove it first")
