"""Prompts: Jinja templates, sandboxed and strict, stored beside the code that uses them or at a path from a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from limbeck.corpus.errors import LimbeckError


def prompt_path(prompt: str, own: Path) -> Path:
    """Path of a prompt, given as a path or as the name of one in the folder `own`."""
    return Path(prompt) if "/" in prompt or prompt.endswith(".jinja") else own / f"{prompt}.jinja"


def load_template(prompt: str, own: Path, names: str = "*") -> jinja2.Template:
    """Return a template by name or path; raises LimbeckError if it is missing or malformed.

    `names` is the pattern of valid prompts in the folder `own`, for the message.
    """
    path = prompt_path(prompt, own)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in own.glob(f"{names}.jinja")))
        raise LimbeckError(f"no prompt {prompt} ({path}); name one of {known}, or the path of a .jinja file") from error
    return parse_template(text, f"the prompt {path}")


def parse_template(text: str, where: str) -> jinja2.Template:
    """Return the template with this text; raises LimbeckError, which begins with `where`, if it is malformed."""
    try:
        return SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text)
    except jinja2.TemplateError as error:
        raise LimbeckError(f"{where} is not a Jinja template: {error}") from error


def render_prompt(template: jinja2.Template, prompt: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the text of a prompt, without leading or trailing whitespace.

    Its variables are `own` and `given`, which must not share a name. `prompt` is the template's name, for the message of the
    LimbeckError that is raised if it fails.
    """
    try:
        return template.render(**own, **given).strip()
    except (jinja2.TemplateError, TypeError) as error:
        known = ", ".join((*own, *given))
        raise LimbeckError(f"the prompt {prompt} does not render: {error}; it may use {known}") from error
