"""What `limbeck check` prints: models, the placement plan, sources, the estimate, problems."""

import os
from typing import Any

from limbeck.corpus.amounts import counted, minutes
from limbeck.pipelines.driver.nli_calls import shown
from limbeck.pipelines.runs.events import acceptance_words


def show(found: dict[str, Any]) -> None:
    """Print what `check` found."""
    for where, facts in found["models"].items():
        size = f"{facts['parameters'] / 1e6:.0f}M parameters, {facts['bytes'] / 1e6:.0f} MB"
        if not facts["parameters"]:
            size = "on a server"
        context = f"{facts['context_tokens']} tokens" if facts["context_tokens"] else "unknown"
        print(f"{where}: {facts['model']}: {size}, context {context}")
    print(f"cluster: {found['cluster']}")
    if "placement" in found:
        _show_placement(found["placement"])
    if "documents" in found:
        counts = found["documents"]
        splits = ", ".join(f"{counts[split]} {split}" for split in ("train", "dev", "test"))
        print(f"{found['rows_are']}: {splits}; {counts['rejected']} not used")
        for reason, count in found["rejected_sources"].items():
            print(f"  not used: {count}: {reason}")
    if "estimate" in found:
        cost = found["estimate"]
        if "target" in cost:
            print(_target(cost["target"], found["documents"]["train"], found["rows_are"]))
        tokens = ", ".join(f"{name} {n:,}" for name, n in cost["tokens"].items())
        print(f"estimate: {counted(cost['completions'], 'completion')}; tokens: {tokens}")
        if "self_test_prompts" in cost:
            print(f"estimate: up to {cost['self_test_prompts']:,} of the prompts test the judging filters (self_test)")
        for line in shown(cost.get("nli_pairs", {}), cost.get("rounds", 1)):
            print(line)
        if "seconds" in cost:
            cores = counted(os.cpu_count() or 1, "core")
            print(f"estimate: {minutes(cost['seconds']['total'])} on {cores} of this machine, without start-up")
    if "acceptance" in found:
        print(f"so far, round {found['acceptance']['round']}: {acceptance_words(found['acceptance'])}")
    for problem in found["problems"]:
        print(f"problem: {problem}")
    print(f"this recipe cannot run; problems: {len(found['problems'])}" if found["problems"] else "this recipe can run")


def _target(target: dict[str, Any], sources: int, rows_are: str) -> str:
    """From how many sources a round draws its rows, and what that assumes."""
    each = counted(target["candidates_per_source"], "candidate")
    some = f"{target['train_sources']:,} of {sources:,} train {rows_are}"
    return (
        f"estimate: {counted(target['rows'], 'row')} per round, from {some}, "
        f"if {target['acceptance']:.0%} of up to {each} of each are accepted (calibration.pass_rate)"
    )


def _show_placement(plan: dict[str, Any]) -> None:
    """Nodes, a table of stages and models for each phase that differs from the first, and the trainer."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for node in plan["nodes"]:
        gpus = f", {node['gpus']} GPU of {_size(node['gpu_memory_bytes'])}" if node["gpus"] else ""
        console.print(f"node {node['name']}: {node['cpus']:g} CPUs, {_size(node['memory_bytes'])} of memory{gpus}")
    for pool in plan["pools"]:
        gpus = f", {pool['gpus']:g} GPU" if pool["gpus"] else ""
        where = ", ".join(f"{pool['nodes'].count(name)} on {name}" for name in dict.fromkeys(pool["nodes"]))
        console.print(f"{pool['name']}: {pool['workers']} × ({pool['cpus']:g} CPU{gpus}): {where or 'no node has room'}")
    turns = [max((stage["turn"] for stage in phase["stages"]), default=1) for phase in plan["phases"]]
    for phase, count in zip(plan["phases"], turns, strict=True):
        if phase is plan["phases"][0] or count > 1:
            console.print(_table(phase))
        if count > 1:
            console.print(
                f"{count} turns: all parts pass through one turn, then the workers are stopped and the next turn starts"
            )
    if len(turns) > 1 and max(turns) == 1:
        console.print(f"students are loaded like the teacher; engines per worker at a time: {plan['keep']}")
    if plan["training"]:
        console.print(_training(plan["training"]))
    for note in plan["notes"]:
        console.print(f"note: {note}")


def _table(phase: dict[str, Any]) -> Any:
    """One row per turn, pool and set of models."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=f"placement, {phase['phase']}", title_justify="left", title_style="", box=SIMPLE_HEAD)
    for heading in ("turn", "workers", "stages", "model", "memory"):
        table.add_column(heading, overflow="fold")
    rows: dict[tuple[Any, ...], list[str]] = {}
    for stage in phase["stages"]:
        models = "; ".join(f"{model['model']} ({model['kind']})" for model in stage["models"]) or "none"
        memory = "; ".join(_held(model) for model in stage["models"])
        stages = rows.setdefault((str(stage["turn"]), stage["pool"], models, memory), [])
        stages.append(stage["stage"])
    for (turn, pool, models, memory), stages in rows.items():
        table.add_row(turn, pool, ", ".join(dict.fromkeys(stages)), models, memory)
    return table


def _held(model: dict[str, Any]) -> str:
    if model["on"] == "a server":
        return "on the server"
    if model["on"] == "CPU":
        return f"{_size(model['memory_bytes'])}, CPU"
    spread = "of the GPU" if model["gpus"] == 1 else f"of each of {model['gpus']} GPUs"
    return f"{_size(model['gpu_memory_bytes'])} {spread}"


def _training(training: dict[str, Any]) -> str:
    gpus = f", {training['gpus']} GPU with {_size(training['gpu_memory_bytes'])}" if training["gpus"] else ""
    each = f"{training['workers']} × ({training['cpus']:g} CPU{gpus}, {_size(training['memory_bytes'])})"
    takes_turns = "runs after the workers have stopped"
    when = {"after the workers": takes_turns, None: "no node has room"}.get(training["when"], training["when"])
    return f"train: {each}, {when}"


def _size(count: int | None) -> str:
    return "unknown size" if count is None else f"{count / 1e9:.1f} GB"
