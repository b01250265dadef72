"""Request and answer models of the typed routes; the OpenAPI schema is generated from them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Token = Annotated[int, Field(ge=0, lt=1 << 32)]
Tokens = list[Token]
Term = Annotated[str, Field(min_length=1)] | Annotated[Tokens, Field(min_length=1)]
Clauses = Annotated[list[Annotated[list[Term], Field(min_length=1, max_length=4)]], Field(min_length=1, max_length=4)]


class Request(BaseModel):
    """Base of all requests: unknown fields are refused, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(Request):
    """The query: a text, encoded by the index's tokenizer, or token ids."""

    text: str | None = Field(None, description="a text, tokenised as is; start it with a space to begin a word")
    ids: Tokens | None = Field(None, description="token ids, instead of a text")

    @model_validator(mode="after")
    def _one(self) -> "Query":
        if (self.text is None) == (self.ids is None):
            raise ValueError("give either text or ids")
        return self


class ProbQuery(Query):
    """A prompt and the token after it."""

    token: Token | None = Field(None, description="the token after the prompt; default: the query's last token")


class NextQuery(Query):
    """A prompt, and the page of next tokens to return."""

    limit: int = Field(100, ge=1, le=10_000, description="tokens in one answer, the most frequent first")
    cursor: str | None = Field(None, description="next_cursor of the previous answer")


class ClauseQuery(Request):
    """A text, token ids, or clauses of terms: all clauses must occur close together, each by one of its terms."""

    text: str | None = None
    ids: Tokens | None = None
    clauses: Clauses | None = Field(None, description="AND of OR of terms, each a text or token ids")
    max_distance_tokens: int = Field(100, ge=0, le=1000, description="how far apart neighbouring clauses of a match may be")
    max_anchors: int = Field(
        50_000,
        ge=1,
        le=500_000,
        description="occurrences of the rarest clause to examine; if there are more, a sample is used",
    )

    @model_validator(mode="after")
    def _one(self) -> "ClauseQuery":
        if sum(given is not None for given in (self.text, self.ids, self.clauses)) != 1:
            raise ValueError("give one of text, ids and clauses")
        return self


class SearchQuery(ClauseQuery):
    """What documents must contain, and which page to return; the pages of one seed do not overlap."""

    limit: int = Field(10, ge=1, le=100, description="documents in one answer")
    cursor: str | None = Field(None, description="next_cursor of the previous answer")
    seed: int = Field(0, ge=0, lt=1 << 63, description="determines the order of occurrences")
    max_tokens: int = Field(200, ge=1, le=10_000, description="tokens of a document shown around the match")
    distinct_documents: bool = Field(False, description="return each document once, however often it matches")


class TraceQuery(Query):
    """A text to trace, and which spans to return."""

    min_tokens: int = Field(1, ge=1, description="shortest span")
    max_count: int = Field(10, ge=1, description="spans that occur more often are omitted")
    spans_per_token: float | None = Field(0.05, gt=0, le=1, description="spans to keep per token, the rarest; null keeps all")
    max_documents: int = Field(10, ge=0, le=100, description="documents shown per span")
    context_tokens: int = Field(80, ge=1, le=1000, description="tokens of a document shown around a span")
    whole_words: bool | None = Field(None, description="spans respect word boundaries [default: if a tokenizer is known]")


class Place(Request):
    """A position in a shard: a rank of its suffix array, or a byte offset into its text."""

    shard: int = Field(ge=0)
    rank: int | None = Field(None, ge=0)
    pointer: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> "Place":
        if (self.rank is None) == (self.pointer is None):
            raise ValueError("give either rank or pointer")
        return self


class DocumentsQuery(Request):
    """Documents by number, or windows around positions."""

    numbers: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list, max_length=100)
    places: list[Place] = Field(default_factory=list, max_length=100)
    max_tokens: int = Field(1000, ge=1, le=10_000)


class BatchQuery(Request):
    """A batch of queries: lists of ids, texts, or flat ids with offsets (one more than queries)."""

    queries: list[Tokens] | None = None
    texts: list[str] | None = None
    ids: Tokens | None = None
    offsets: list[Annotated[int, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _one(self) -> "BatchQuery":
        if sum(given is not None for given in (self.queries, self.texts, self.ids)) != 1:
            raise ValueError("give one of queries, texts and ids")
        if (self.ids is None) != (self.offsets is None):
            raise ValueError("give ids and offsets together")
        return self


class BatchProbQuery(BatchQuery):
    """A batch of prompts and the token after each."""

    tokens: Tokens | None = Field(None, description="the token after each prompt; default: each query's last token")


class ErrorAnswer(BaseModel):
    """One sentence: what is wrong and how to fix it."""

    error: str


class HealthAnswer(BaseModel):
    """Which indexes are in service."""

    status: str = Field(description="ok, or degraded if there are problems")
    indexes: list[str]
    problems: dict[str, str] = Field(
        description="by name, one sentence for every index that is out of service or whose new state cannot be opened"
    )


class IndexAnswer(BaseModel):
    """Description of an index."""

    name: str
    tokens: int = Field(description="including separators")
    documents: int
    shards: int
    dtype: str
    version: int
    tokenizer: bool = Field(description="whether the index accepts text")
    word_start: str = Field(description="prefix that makes a query begin a word")


class CountAnswer(BaseModel):
    """Count of a query."""

    count: int
    approximate: bool


class ProbAnswer(BaseModel):
    """A token's probability after a prompt; null if the prompt never occurs."""

    prompt_count: int
    continuation_count: int
    probability: float | None
    suffix_tokens: int


class NextToken(BaseModel):
    """One token that follows."""

    id: int
    text: str
    count: int
    probability: float


class NextAnswer(BaseModel):
    """The tokens that follow a prompt, the most frequent first."""

    prompt_count: int
    suffix_tokens: int
    distinct: int = Field(description="distinct tokens that follow")
    tokens: list[NextToken]
    next_cursor: str | None


class DocumentAnswer(BaseModel):
    """A window of a document; `spans` splits it at matches: (text, number of the clause or null)."""

    number: int
    shard: int
    tokens: int = Field(description="of the whole document")
    begin: int = Field(description="the window's first token")
    needle: int = Field(description="offset of the match in the window")
    ids: list[int]
    spans: list[tuple[str, int | None]]
    metadata: dict[str, Any] | None


class SearchAnswer(BaseModel):
    """Count of the query, and documents."""

    count: int
    approximate: bool
    documents: list[DocumentAnswer]
    next_cursor: str | None


class DocumentsAnswer(BaseModel):
    """Documents in the requested order."""

    documents: list[DocumentAnswer]


class ScoreAnswer(BaseModel):
    """The ∞-gram model's scores for every token of a text."""

    ids: list[int]
    tokens: list[str]
    suffix_tokens: list[int]
    prompt_counts: list[int]
    continuation_counts: list[int]
    probabilities: list[float | None]


class TracedDocumentAnswer(BaseModel):
    """A document that holds a span."""

    relevance: float
    document: DocumentAnswer


class SpanAnswer(BaseModel):
    """Tokens [begin, end) of the text, which occur verbatim in the index."""

    begin: int
    end: int
    text: str
    count: int
    unigram_log_probability: float
    documents: list[TracedDocumentAnswer]


class TraceAnswer(BaseModel):
    """A text's tokens and its spans that occur in the index."""

    ids: list[int]
    tokens: list[str]
    spans: list[SpanAnswer]


class BatchCountAnswer(BaseModel):
    """Count of each query."""

    counts: list[int]


class BatchProbAnswer(BaseModel):
    """`ProbAnswer` of each query, as columns."""

    prompt_counts: list[int]
    continuation_counts: list[int]
    probabilities: list[float | None]
    suffix_tokens: list[int]


class BatchNextAnswer(BaseModel):
    """The tokens after query q are ids[offsets[q]:offsets[q + 1]], ascending, with matching counts."""

    prompt_counts: list[int]
    suffix_tokens: list[int]
    offsets: list[int]
    ids: list[int]
    counts: list[int]


class BatchScoreAnswer(BaseModel):
    """`ScoreAnswer` of each text, flat; text q has the entries offsets[q]:offsets[q + 1]."""

    offsets: list[int]
    suffix_tokens: list[int]
    prompt_counts: list[int]
    continuation_counts: list[int]
    probabilities: list[float | None]
