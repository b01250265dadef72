"""Requests in progress, and how they share prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.sampling import NOT_A_NUMBER, Draw
from limbeck.cluster.engines.protocol import Completion, FinishReason, Request, constraint_problem, refusal
from limbeck.cluster.engines.rendering import Rendered

_FOLD_TOKENS = 256  # a group's own tokens may take this many positions of its slot, or as many as its prompt
NAN_ERROR = "the model returned no finite logits (NaN); its weights or its dtype are broken"


@dataclass
class Sample:
    """One request in progress: `tokens` so far, and `finish_reason` (and `error`) once it has finished.

    `without` is the prompt without the source, if its sampling has a contrast.
    """

    request: Request
    rendered: Rendered
    without: Rendered | None = None
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of its prompt."""
        return self.rendered.tokens

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end it."""
        return (*self.request.sampling.stop, *self.rendered.stop)

    def next_draw(self) -> Draw:
        """Parameters for drawing its next token."""
        return Draw(self.request.sampling, self.request.seed, len(self.tokens), self.tokens)


@dataclass
class Group:
    """Samples that share a slot; `width` is the maximum of positions they can need.

    With a contrast, `shadow` is a group of the same samples after their prompt without the source, in a slot of its own.
    """

    samples: list[Sample]
    slot: int = -1
    is_shadow: bool = False
    shadow: "Group | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Create the shadow, if the samples have a contrast."""
        if self.samples[0].without is not None and not self.is_shadow:
            self.shadow = Group(self.samples, is_shadow=True)

    @property
    def slots(self) -> list["Group"]:
        """The groups that need a slot: itself, and its shadow."""
        return [self] if self.shadow is None else [self, self.shadow]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt tokens shared by all its samples."""
        first = self.samples[0]
        return first.without.tokens if self.is_shadow and first.without is not None else first.prompt

    @property
    def width(self) -> int:
        """Positions for the prompt and for every token that may be forwarded."""
        prompt = max(len(group.prompt) for group in self.slots)
        return prompt + len(self.samples) * max(s.request.sampling.max_new_tokens for s in self.samples)

    def live(self) -> list[tuple[int, Sample]]:
        """Its unfinished samples with their number within the group."""
        return [(i, sample) for i, sample in enumerate(self.samples) if sample.finish_reason is None]

    def used(self) -> int:
        """Positions in use."""
        return len(self.prompt) + len(self.samples) * max(len(s.tokens) for s in self.samples)


def accept(sample: Sample, token: int, loaded: Loaded) -> None:
    """Process a drawn token: it ends the sample, or is appended (and may complete a stop string or reach the limit)."""
    if token == NOT_A_NUMBER:
        sample.finish_reason, sample.error = "error", NAN_ERROR
    elif token in loaded.end_tokens or token in sample.rendered.end_tokens:
        sample.finish_reason = "stop"
    else:
        sample.tokens.append(token)
        if sample.stop and holds_stop(sample, loaded):
            sample.finish_reason = "stop"
        elif len(sample.tokens) >= sample.request.sampling.max_new_tokens:
            sample.finish_reason = "length"


def holds_stop(sample: Sample, loaded: Loaded) -> bool:
    """Whether the newest token completed a stop string; only as many tokens are decoded as its bytes can span."""
    stop = sample.stop
    tail = sample.tokens[-(max(len(s.encode()) for s in stop) + 4) :]
    text = loaded.tokenizer.decode(tail, skip_special_tokens=True)
    return any(s in text for s in stop)


def group_samples(samples: Sequence[Sample], batch_sequences: int) -> list[Group]:
    """Return the samples by prompt, in groups so small that a slot is not mostly other samples' tokens; widest first."""
    by_prompt: dict[tuple[tuple[int, ...], tuple[int, ...] | None], list[Sample]] = {}
    for sample in samples:
        by_prompt.setdefault((sample.prompt, None if sample.without is None else sample.without.tokens), []).append(sample)
    groups = []
    for (prompt, _), alike in by_prompt.items():
        longest = max(s.request.sampling.max_new_tokens for s in alike)
        size = max(1, min(batch_sequences, max(len(prompt), _FOLD_TOKENS) // longest))
        groups += [Group(alike[start : start + size]) for start in range(0, len(alike), size)]
    return sorted(groups, key=lambda group: -group.width)


def refuse(sample: Sample, context_tokens: int) -> None:
    """End a sample that cannot run: an empty prompt, no room for its new tokens, structured output, a faulty constraint."""
    sampling = sample.request.sampling
    sample.error = refusal(len(sample.prompt), sampling, context_tokens) or constraint_problem(sampling)
    if sample.without is not None and not sample.error:
        error = refusal(len(sample.without.tokens), sampling, context_tokens)
        sample.error = error and f"without the source (contrast), {error}"
    if sampling.json_schema or sampling.regex:
        sample.error = "structured output (json_schema, regex) needs an engine of kind vllm, or endpoint for json_schema"
    if sample.error:
        sample.finish_reason = "error"


def completion(sample: Sample, loaded: Loaded) -> Completion:
    """Return the completion of a finished sample; its text is cut at the first stop string, its tokens are all drawn tokens."""
    assert sample.finish_reason is not None
    text = ""
    if sample.finish_reason != "error":
        text = loaded.tokenizer.decode(sample.tokens, skip_special_tokens=True)
        for stop in sample.stop:
            text = text.split(stop, 1)[0]
    tokens = tuple(sample.tokens) if sample.finish_reason != "error" else ()
    constraint = sample.request.sampling.constraint
    unmet = constraint.unmet(text) if constraint and sample.finish_reason != "error" else ()
    return Completion(sample.request.request_id, text, tokens, sample.finish_reason, len(sample.prompt), sample.error, unmet)
