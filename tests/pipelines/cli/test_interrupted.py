"""What an interrupted command promises: only those that resume say so."""

from typing import Any

import pytest
import typer.main

from limbeck.pipelines.cli import main as cli

PROMISE = "; completed work is saved, rerun the same command to resume"


@pytest.mark.parametrize(
    ("arguments", "resumes"),
    [
        ("run quickstart", True),
        ("run --out runs/a quickstart", True),
        ("ngram build texts --out index", True),
        ("ngram append index texts", True),
        ("ngram compact index", True),
        ("critic train-nli", True),
        ("ngram serve index", False),
        ("ngram count index run", False),
        ("ngram verify index", False),
        ("critic measure-nli build", False),
        ("preview run", False),
        ("check quickstart", False),
        ("filter run --score", False),
        ("report run", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("way", ["raised", "returned"])
def test_an_interruption(
    arguments: str, resumes: bool, way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**options: Any) -> int:
        if way == "raised":
            raise KeyboardInterrupt
        return 130  # how typer ends a command that Ctrl-C interrupted

    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr("sys.argv", ["limbeck", *arguments.split()])
    assert cli._exit_code() == 130
    assert capsys.readouterr().err == f"limbeck: interrupted{PROMISE if resumes else ''}\n"


@pytest.mark.parametrize("names", cli._RESUMING)
def test_commands_that_resume_exist(names: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(cli.app)
    for name in names:
        command = command.commands[name]
    assert command.callback is not None
