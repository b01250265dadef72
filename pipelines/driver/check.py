"""Validate a recipe before it runs: models, context lengths, memory, disk, cluster; and estimate the cost of the run."""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, ModelInfo, describe, describe_served, resolve
from limbeck.cluster.engines.shape import shape_of
from limbeck.cluster.installation import foreign_nodes
from limbeck.cluster.placement.plan import Plan, as_plain
from limbeck.cluster.session import running_cluster
from limbeck.corpus.config import nearest
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import MissingExtra
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.vary import example
from limbeck.filters.config import Cost, FilterConfig
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.generators.contract import TEACHER, GeneratorConfig
from limbeck.pipelines.driver.mixtures import mix_problems, share_problems
from limbeck.pipelines.driver.nli_calls import nli_calls
from limbeck.pipelines.driver.placing import missing_extras, plan_for
from limbeck.pipelines.driver.reading import counted
from limbeck.pipelines.kinds import packages_of
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.dataset import COLUMNS
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.folder import RunFolder, recorded_cpu_dtype, refuse_other_run
from limbeck.pipelines.runs.lock import being_run, lock_holder
from limbeck.pipelines.runs.preferences import no_score
from limbeck.pipelines.runs.rows import ControlCodeRows
from limbeck.pipelines.runs.stages import stages_of
from limbeck.students.evaluation.measures import HEADINGS
from limbeck.students.evaluation.statistics import SCORES

# measured on two CPU cores with a 135M model in bfloat16; used only for the estimate
REFERENCE_PARAMETERS = 135e6
TOKENS_PER_SECOND = {"complete": 200.0, "logprobs": 1200.0, "train": 250.0}
REFERENCE_CORES = 2


def refuse_what_cannot_run(recipe: Recipe, out: Path) -> tuple[Path, Plan]:
    """Raise LimbeckError with every problem found; returns the round-0 teacher's folder and the placement plan."""
    problems = find_problems(recipe, out)
    plan = None if problems else plan_for(recipe)
    if plan is None or plan.problems:
        raise LimbeckError("; ".join([*problems, *(plan.problems if plan else ())]))
    return recipe.teacher.folder(), plan


def find_problems(recipe: Recipe, out: Path) -> list[str]:
    """Every reason why the recipe cannot run, except placement, in one sentence each."""
    missing = missing_extras(recipe)
    models, faults = _described(recipe)
    # a model that cannot be unpacked because of the same missing extra is not a second problem
    problems = missing + [str(fault) for fault in faults.values() if not (missing and isinstance(fault, MissingExtra))]
    if "teacher.model" in models:
        problems += _context_problems(recipe, models)
        problems += _template_problems(recipe, models["teacher.model"], missing)
    problems += _generator_problems(recipe)
    problems += [f"filters.{filter_.name}: {problem}" for filter_ in recipe.filters for problem in filter_.problems()]
    problems += [
        f"filters.{filter_.name}: it scores no mismatched pairs, so {filter_.null_columns[0]} cannot use false_acceptance; "
        "set a number, or calibrated"
        for filter_ in recipe.filters
        if filter_.null_columns and not filter_.nullable
    ]
    problems += [f"select.{filter_.name}: {problem}" for filter_ in recipe.select for problem in filter_.problems()]
    problems += engine_problems(recipe)
    if not missing:  # comparing chat templates needs transformers
        problems += _student_problems(recipe, models) + _layer_problems(recipe, models)
    problems += _score_problems(recipe)
    problems += _text_problems(recipe) + _sample_problems(recipe) + _stop_problems(recipe)
    problems += mix_problems(recipe)
    problems += _disk_problems(recipe, models, out)
    return problems


def named_models(recipe: Recipe) -> dict[str, str]:
    """Every model in the recipe: key → model; `recipe` may be resolved or not."""
    found = {"teacher.model": recipe.teacher.model}
    for filter_ in recipe.filters:
        found |= {
            f"filters.{filter_.name}.{key}": model for key, model in filter_.models.items() if model != recipe.teacher.model
        }
    for section, student in recipe.student_sections.items():
        found |= {f"{section}.{key}": model for key, model in student.models.items()}
    return found


def _described(recipe: Recipe) -> tuple[dict[str, ModelInfo], dict[str, LimbeckError]]:
    """Facts of every model in the recipe that can be found, and errors for the others; both by key.

    A model that runs outside the cluster needs no weights here, unless a student starts from them.
    """
    engines = {"teacher": recipe.teacher, **{f"filters.{filter_.name}.engine": filter_.asks for filter_ in recipe.filters}}
    remote = {f"{key}.model": engine for key, engine in engines.items() if engine is not None and engine.remote}
    if any(student.base_model(recipe.teacher.model) == recipe.teacher.model for student in recipe.students):
        remote.pop("teacher.model", None)
    models, faults = dict[str, ModelInfo](), dict[str, LimbeckError]()
    for where, model in named_models(recipe).items():
        try:
            models[where] = describe_served(remote[where].folder()) if where in remote else describe(resolve(model))
        except LimbeckError as error:
            faults[where] = type(error)(f"{where}: {error}")
    return models, faults


def check(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Problems and estimate as data: {problems, models, cluster, placement, documents, ..., estimate}; writes nothing."""
    problems = find_problems(recipe, out)
    found: dict[str, Any] = {"name": recipe.name, "problems": problems, "cluster": _cluster(recipe), "models": {}}
    models, faults = _described(recipe)
    for where, info in models.items():
        known = info.context_tokens if info.context_tokens < NO_LIMIT_TOKENS else None
        facts = {"parameters": info.parameters, "bytes": info.bytes, "context_tokens": known}
        found["models"][where] = {"model": named_models(recipe)[where], **facts}
    if not faults:
        plan = plan_for(recipe.resolved())
        problems += plan.problems
        found["placement"] = as_plain(plan)
    if "teacher.model" in found["models"]:
        try:
            found["documents"], found["rejected_sources"] = counted(recipe)
            found["rows_are"] = recipe.sources.rows_are
            found["estimate"] = estimate(recipe, found["documents"], models["teacher.model"].parameters)
            if calls := nli_calls(recipe, found["documents"]):
                found["estimate"]["nli_pairs"], found["estimate"]["rounds"] = calls, recipe.rounds
            problems += _target_problems(recipe, found["documents"]) + _dev_problems(recipe, found["documents"])
            problems += share_problems(recipe, found["documents"]["train"]) if not mix_problems(recipe) else []
        except LimbeckError as error:
            problems += [problem for problem in [f"sources: {error}"] if problem not in problems]
        problems += _folder_problems(recipe, out)
    problems += _code_problems(recipe)
    said = [event for event in read_events(out / "events.jsonl") if event["event"] == "acceptance"]
    if said:
        found["acceptance"] = {key: value for key, value in said[-1].items() if key not in ("time", "event")}
    return found


def estimate(recipe: Recipe, documents: dict[str, int], parameters: int) -> dict[str, Any]:
    """Estimate tokens and seconds of the run from counts: within a factor of about two on CPUs, too high on GPUs.

    Without `parameters` (the teacher is on a server), seconds are omitted. `completions` are those of all rounds, with the
    answers to held-out sources. With a target, `target` says from how many train sources a round draws how many rows, if
    `acceptance` of the `candidates_per_source` are accepted: the recipe's pass rate, an assumption until some are decided.
    """
    split = {name: documents[name] for name in ("train", "dev", "test")}
    each = max(1, recipe.generator.needs.candidates)
    if recipe.target is not None:
        split["train"] = min(split["train"], math.ceil(recipe.target.rows / (recipe.calibration.pass_rate * each)))
    length = documents["document_tokens"] / max(1, documents["used"])
    needs, settings = recipe.generator.needs, recipe.evaluation
    new, samples = needs.new_tokens * 0.6, needs.completions
    models = recipe.rounds + 1 if recipe.students else 1
    each_prompt = recipe.renderer.prompts  # of a held-out input: several with control codes
    drawn = recipe.rounds * split["train"] * samples + models * split["dev"] * settings.dev_samples * each_prompt
    drawn += models * split["test"] * settings.samples * each_prompt
    judged = drawn + split["test"] * (2 + settings.samples * each_prompt)
    scored = judged * (length + 3 * new) * sum(filter_.cost >= Cost.MODEL for filter_ in recipe.filters)
    probes = sum(probed(filter_) for filter_ in recipe.filters)
    scored += probes * (length + 3 * new)
    rows = recipe.calibration.pass_rate * split["train"] * each
    trained = sum(student.passes for student in recipe.students) * rows * (length + needs.prompt_tokens / 2 + new)
    trained += sum(student.text_tokens for student in recipe.students)
    tokens = {"complete": drawn * new, "logprobs": scored, "train": trained}
    found: dict[str, Any] = {"completions": drawn, "tokens": {name: round(count) for name, count in tokens.items()}}
    if recipe.target is not None:
        rate = {"acceptance": recipe.calibration.pass_rate, "candidates_per_source": each}
        found["target"] = {"rows": min(recipe.target.rows, round(rows)), "train_sources": split["train"], **rate}
    if probes:
        found["self_test_prompts"] = probes
    if parameters:
        speed = REFERENCE_PARAMETERS / parameters * (os.cpu_count() or 1) / REFERENCE_CORES
        seconds = {name: round(count / (TOKENS_PER_SECOND[name] * speed), 1) for name, count in tokens.items()}
        found["seconds"] = {**seconds, "total": round(sum(seconds.values()), 1)}
    return found


def probed(filter_: FilterConfig) -> int:
    """How many prompts a filter's self-test has at most: if every corruption applies to enough outputs."""
    return filter_.probing.pairs * filter_.probing.texts * len(CORRUPTIONS) if filter_.probing else 0


def _target_problems(recipe: Recipe, documents: dict[str, int]) -> list[str]:
    """A target cannot exceed the candidates of all train sources."""
    each, most = recipe.generator.needs.candidates, documents["train"] * recipe.generator.needs.candidates
    if recipe.target is None or recipe.target.rows <= most:
        return []
    sources = f"{documents['train']} train {recipe.sources.rows_are}"
    return [
        f"target: {recipe.target.rows} rows are more than {sources} with {each} candidates each can give; lower target, "
        "add sources, or draw more candidates of each"
    ]


def _dev_problems(recipe: Recipe, documents: dict[str, int]) -> list[str]:
    """Rules that end a run look at dev figures."""
    if recipe.stop is None or documents["dev"]:
        return []
    return [f"stop looks at dev figures, but there are no dev {recipe.sources.rows_are}; raise sources.split.dev, or remove stop"]


def _folder_problems(recipe: Recipe, out: Path) -> list[str]:
    """Why `run` would refuse the folder: it belongs to another recipe, to something else, or to a living driver."""
    folder = RunFolder(out.absolute())
    try:
        resolved = recipe.resolved(recorded_cpu_dtype(folder))
        refuse_other_run(folder, stages_of(resolved, resolved.filters, resolved.select, resolved.teacher.folder()))
    except LimbeckError as error:
        return [str(error)]
    holder = lock_holder(folder)
    return [being_run(folder, holder)] if holder else []


def _context_problems(recipe: Recipe, models: dict[str, ModelInfo]) -> list[str]:
    """The longest document with prompt and output must fit in each language model; filters' own models truncate."""
    limit = recipe.sources.max_document_tokens
    if limit is None:
        return []  # a document that does not fit becomes a row with an error
    needs = recipe.generator.needs
    need = limit + needs.prompt_tokens + needs.new_tokens
    return [
        f"{where} {named_models(recipe)[where]} has a context of {info.context_tokens} tokens, but documents of {limit} with "
        f"prompt and output need {need}; lower sources.max_source_tokens or use a model with a longer context"
        for where, info in models.items()
        if info.context_tokens < need and (where == "teacher.model" or where.endswith(".engine.model"))
    ]


def _template_problems(recipe: Recipe, teacher: ModelInfo, missing: Sequence[str]) -> list[str]:
    """Conversations need a chat template, and user's turns one that can be cut before the user's text."""
    try:
        drawn = example(recipe.sources.vary)
        turns = [turn for generator in _generators(recipe).values() for turn in generator.user_turns(drawn)]
    except LimbeckError:
        turns = []  # reported as a problem of the generator
    if (recipe.generator.needs.chat or recipe.renderer.chat) and not teacher.has_chat_template:
        plain = "" if turns else "set generator.style: plain, or "
        return [f"teacher.model {recipe.teacher.model} has no chat template; {plain}use an instruct model"]
    found = [] if missing else [recipe.teacher.user_turn_problem(turn) for turn in turns]  # reading templates needs transformers
    return [f"teacher: {problem}" for problem in found if problem is not None][:1]


def _generators(recipe: Recipe) -> dict[str, GeneratorConfig]:
    """The generators of the recipe by their sections."""
    named = {"generator": recipe.generator, "later": recipe.later, "task": recipe.task}
    return {section: config for section, config in named.items() if config is not None}


def _generator_problems(recipe: Recipe) -> list[str]:
    """Prompts must render with the values that sources draw."""
    try:
        drawn = example(recipe.sources.vary)
    except LimbeckError as error:
        return [f"sources: {error}"]
    found = [f"{where}: {problem}" for where, config in _generators(recipe).items() for problem in config.problems(drawn)]
    teacher = recipe.teacher.choose(recipe.cluster.gpus_per_worker)
    for where, config in _generators(recipe).items():
        if not teacher.holds_json_schemas:
            found += [
                f"{where}.{step}.json_schema: an engine of kind {teacher.kind} does not hold completions to a schema; use vllm "
                "or endpoint, or remove it"
                for step in config.json_schemas
            ]
        if not teacher.holds_constraints:
            found += [
                f"{where}.{step}.constraint: an engine of kind {teacher.kind} does not support constraints; use transformers, "
                "or remove it"
                for step in config.constrained
            ]
        if config.decodes_pmi and not teacher.contrasts:
            found.append(
                f"{where}.contrast: an engine of kind {teacher.kind} has no PMI decoding; use transformers, or remove the section"
            )
    return found


def engine_problems(recipe: Recipe) -> list[str]:
    """Problems reported by the engines, such as a server that does not respond; each engine is checked once."""
    named: list[tuple[str, EngineConfig]] = [(TEACHER, recipe.teacher)]
    named += [
        (f"{section}.{name}", engine)
        for section, generator in _generators(recipe).items()
        for name, engine in generator.engines.items()
    ]
    named += [(f"filters.{filter_.name}.engine", filter_.asks) for filter_ in recipe.filters if filter_.asks is not None]
    once = {engine.identity: (key, engine) for key, engine in reversed(named)}
    return [problem for key, engine in reversed(once.values()) for problem in engine.problems(key)]


def _student_problems(recipe: Recipe, models: dict[str, ModelInfo]) -> list[str]:
    """A student must be able to read the teacher's text, and its dataset must have the columns that it trains on."""
    problems = _cached_teacher_problems(recipe, models)
    for section, student in recipe.student_sections.items():
        if "teacher.model" in models:
            problems += student.problems(section, models["teacher.model"].folder, recipe.renderer.chat)
        rows = recipe.preferences
        if rows is not None and not {*rows.columns} & {*student.columns} - {"prompt", "completion"}:
            problems.append(
                f"{section} trains on {' and '.join(student.columns)}, but rows.kind preferences writes "
                f"{', '.join(rows.columns)}; remove the student, or remove rows and export the pairs of the finished run "
                "(limbeck export --format preferences)"
            )
            continue
        known = {*(COLUMNS if rows is None else rows.columns), *_score_columns(recipe)}
        missing = [column for column in student.columns if column not in known]
        if missing:
            problems.append(f"{section} trains on the column {missing[0]!r}, which is not in the dataset; choose another student")
    return problems


def _layer_problems(recipe: Recipe, models: dict[str, ModelInfo]) -> list[str]:
    """A student cannot keep more layers than its teacher has, which from round 1 on may be a student."""
    ours = recipe.teacher.model
    named = {"teacher.model", *(key for key in named_models(recipe) if key.startswith("student"))}
    if not models.keys() >= named or all(student.base_model(ours) != ours for student in recipe.students):
        return []  # missing models are reported elsewhere; and no student has layers of a teacher on a server
    problems, layers = dict[str, None](), shape_of(ours).layers
    for number, student in enumerate(recipe.students):
        try:
            left = student.layers_from(layers)
        except LimbeckError as error:
            section = "student" if "student" in recipe.student_sections else f"student.{number}"
            problems[f"{section}: {error}"] = None
            continue
        layers = left if recipe.next_teacher == "student" else layers
    return list(problems)


def _cached_teacher_problems(recipe: Recipe, models: dict[str, ModelInfo]) -> list[str]:
    """A student may need more of the teacher's distributions than its engine gives."""
    if "teacher.model" not in models:
        return []
    teacher = recipe.teacher.choose(recipe.cluster.gpus_per_worker)
    wanted = {section: student.cached_teacher for section, student in recipe.student_sections.items()}
    asked = {section: teacher.top_logprobs_problem(cached.top_k) for section, cached in wanted.items() if cached is not None}
    return [f"{section}.teacher: {problem}" for section, problem in asked.items() if problem is not None]


def _score_columns(recipe: Recipe) -> set[str]:
    """The columns that filters declare, as `filter.column`."""
    return {f"{filter_.name}.{column}" for filter_ in recipe.filters for column in filter_.columns or ()}


def _score_problems(recipe: Recipe) -> list[str]:
    """A set filter, and rows with control codes, may only use columns that some filter scores, named `filter.column`."""
    known = _score_columns(recipe)
    unknown = tuple(f"{filter_.name}." for filter_ in recipe.filters if filter_.columns is None)
    problems = []
    for filter_ in recipe.select:
        for key, column in filter_.reads.items():
            if column not in known and not column.startswith(unknown):
                hint = nearest(column, known)
                near = f"; did you mean {hint!r}?" if hint else ""
                problems.append(f"select {filter_.name}: no filter scores {column!r}, which {key} requires{near}")
    problems += _preference_problems(recipe, known, unknown)
    if isinstance(recipe.renderer, ControlCodeRows):
        missing = [column for column in recipe.renderer.columns if column not in known]
        if missing:
            problems.append(
                f"rows: no filter scores {missing[0]!r}, which control_codes requires; add {{kind: attributes}} to filters"
            )
    return problems


def _preference_problems(recipe: Recipe, known: set[str], unknown: tuple[str, ...]) -> list[str]:
    """Pairs need a score, from a tested judge, and two answers to a prompt. `unknown`: prefixes of undeclared columns."""
    rows = recipe.preferences
    if rows is None:
        return []
    problems = []
    if not rows.by.startswith(unknown) and (problem := no_score(rows, sorted(known))) is not None:
        problems.append(problem)
    judge = next((filter_ for filter_ in recipe.filters if filter_.name == rows.filter), None)
    probing = None if judge is None else judge.probing
    if rows.judge == "tested" and probing is not None and not probing.pairs:
        problems.append(
            f"rows.by is {rows.by}, but filters.{rows.filter} is not tested ({probing.off}); test it, compare by another "
            "score, or set rows.judge: any"
        )
    drawn = min(config.needs.candidates for config in (recipe.generator, recipe.later or recipe.generator))
    if drawn < 2:
        problems.append("rows: a pair needs two answers to one prompt, but the generator draws 1 per source; draw more")
    return problems


def _text_problems(recipe: Recipe) -> list[str]:
    """Generators and filters need texts that the sources have, or that the generators add; without them no row is kept."""
    sources, generators = recipe.sources, _generators(recipe)
    problems = [
        f"{where}: {config.kind} needs the {text} of a source, but {sources.kind} have none; use other sources"
        for where, config in generators.items()
        for text in sorted(config.reads - sources.texts)
    ]
    problems += [
        f"{section}: a base that is cut, new, trimmed or healed needs documents, but {sources.kind} have none; use other "
        "sources, or set base.healing.text"
        for section, student in recipe.student_sections.items()
        if student.needs_documents and "document" not in sources.texts
    ]
    known = sources.texts.union(*(config.adds for config in generators.values()))
    filters = [(f"filters.{filter_.name}", "set it to null", filter_.requires) for filter_ in recipe.filters]
    filters += [(f"select.{filter_.name}", "remove it", filter_.requires) for filter_ in recipe.select]
    return problems + [
        f"{where}: {needy} needs the {text} of a row, but no row has one, so it rejects every row; "
        f"use sources that have one ({_SOURCES_WITH[text]}), or {without}"
        for where, without, needs in filters
        for needy, text in needs.items()
        if text not in known
    ]


_SOURCES_WITH: dict[RowText, str] = {
    "document": "all kinds but draws; document_column names that of a table",
    "reference": "reference_column names that of a table",
}


def _stop_problems(recipe: Recipe) -> list[str]:
    """A rule that ends a run needs a measure that has values: texts of the rows, or a filter's score, give them."""
    if recipe.stop is None:
        return []
    texts = recipe.sources.texts.union(*(config.adds for config in _generators(recipe).values()))
    scored = {column for filter_ in recipe.filters for column in filter_.columns or ()}
    unknown = any(filter_.columns is None for filter_ in recipe.filters)
    problems = []
    for key, name in recipe.stop.measures.items():
        without = f"stop.{key} needs {HEADINGS[name]} ({name}), but"
        needed = _MEASURED_WITH.get(name)
        if needed is not None and needed not in texts:
            problems.append(f"{without} no row has a {needed}; use sources that have one ({_SOURCES_WITH[needed]})")
        elif name in SCORES and name not in scored and not unknown:
            problems.append(f"{without} no filter scores it; add one that does, or choose another measure")
    return problems


_MEASURED_WITH: dict[str, RowText] = {
    **dict.fromkeys(("rouge_1", "rouge_2", "rouge_l"), "reference"),
    "salient_recall": "document",
}


def _sample_problems(recipe: Recipe) -> list[str]:
    """A set filter that compares the candidates of a source needs enough of them."""
    most = max(config.needs.candidates for config in (recipe.generator, recipe.later or recipe.generator))
    return [
        f"select.{filter_.name}: its bounds need {filter_.least_samples} samples of a source, but the generator draws {most}, so "
        "it rejects every row; draw more, or change its bounds"
        for filter_ in recipe.select
        if filter_.least_samples > most
    ]


def _disk_problems(recipe: Recipe, models: dict[str, ModelInfo], out: Path) -> list[str]:
    """Check the disk space for checkpoints and students."""
    if not models:
        return []
    problems = []
    teacher = models.get("teacher.model") or next(iter(models.values()))
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    disk = shutil.disk_usage(folder).free
    need_bytes = 20_000_000 + (teacher.parameters * (2 * recipe.rounds + 14) if recipe.students else 0)
    if need_bytes > disk:
        problems.append(
            f"students and checkpoints need about {need_bytes / 1e9:.2f} GB, but {folder} has {disk / 1e9:.2f} GB free; "
            "free some space or choose another --out"
        )
    return problems


def _cluster(recipe: Recipe) -> str:
    address = running_cluster(recipe.cluster)
    return f"joins the Ray cluster at {address}" if address else f"starts a private Ray cluster on {os.cpu_count()} cores"


def _code_problems(recipe: Recipe) -> list[str]:
    """Every node of a joined cluster must have the same Limbeck and the same packages that provide kinds."""
    return foreign_nodes(recipe.cluster, tuple(packages_of([recipe])))
