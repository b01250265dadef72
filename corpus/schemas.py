"""The columns of every table that travels between stages.

`candidate_id` is unique within a round; `source_id` is a hash of the source's content. An unusable row keeps
its position and has a `reason` (sources) or an `error` (candidates), so that counts always reconcile.
"""

import pyarrow as pa

SOURCES = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("document", pa.string(), nullable=False),  # cleaned, and cut at a sentence end; "": none
        pa.field("reference", pa.string()),  # a human-written summary, if there is one
        pa.field("origin", pa.string(), nullable=False),  # file:row, package name, dataset row
        pa.field("split", pa.string(), nullable=False),  # train | dev | test | rejected
        pa.field("group", pa.string(), nullable=False),  # near-duplicates share a group, and a split
        pa.field("document_tokens", pa.int32(), nullable=False),  # after the cut
        pa.field("cut_characters", pa.int32(), nullable=False),  # number of characters cut off; 0: complete
        pa.field("following", pa.string()),  # the first sentences after the cut; null: complete
        pa.field("salient", pa.list_(pa.int32()), nullable=False),  # start0, end0, start1, ...: spans in `document`
        pa.field("reason", pa.string()),  # why the row was not used; null: used
        # null in most rows, and absent from parts that older versions wrote
        pa.field("record", pa.string()),  # JSON: all columns of an input row, what `vary` drew, a frozen question
    ]
)

CANDIDATES = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # the user turn
        pa.field("output", pa.string(), nullable=False),  # "" if `error` is set
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),  # stop | length | error
        pa.field("error", pa.string()),
        # null in most rows, and absent from parts that older versions wrote (read as null)
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),  # of several turns
        pa.field("input", pa.string()),  # what the output refers to; null: the source's document
        pa.field("reference", pa.string()),  # a known answer; null: the source's reference
        pa.field("facts", pa.string()),  # JSON: operator, persona, template, ...
    ]
)

# Every request of every script, in the order in which a source's script made them.
STEPS = pa.schema(
    [
        pa.field("source_id", pa.string()),
        pa.field("step", pa.string()),  # its name in the script, numbered from the second time on
        pa.field("position", pa.int32()),  # among the source's steps
        pa.field("index", pa.int32()),  # among the completions, or targets, of one step
        pa.field("engine", pa.string()),
        pa.field("prompt", pa.string()),  # plain text, or a conversation as JSON
        pa.field("text", pa.string()),  # the completion, or the target that was scored
        pa.field("seed", pa.int64()),
        pa.field("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("output_tokens", pa.int32()),
        pa.field("logprob", pa.float64()),  # nats, of a target
        pa.field("error", pa.string()),
        pa.field("samples", pa.list_(pa.int32())),  # the source's candidates that were made from this completion
    ]
)

# The task pool that a wave sees beside the generator's seeds: what earlier waves accepted, by part and row.
POOL = pa.schema([CANDIDATES.field(name) for name in ("candidate_id", "prompt", "output", "input", "facts")])

# The input of a filter: a candidate joined with its source. Built in memory, never stored.
SCORED_INPUT = pa.schema(
    [
        *CANDIDATES,
        *(SOURCES.field(name) for name in ("document", "document_tokens", "following", "salient", "group")),
    ]
)

# What is added to it for a filter that also scores mismatched pairs (corpus/other_documents.py); null: no such pair.
OTHER = pa.schema(
    [
        pa.field("other_document", pa.string()),
        pa.field("other_document_tokens", pa.int32()),
        pa.field("other_salient", pa.list_(pa.int32())),
    ]
)

# What is added to it for a filter that compares every candidate with several other documents; fewer if the split has fewer.
OTHERS = pa.field("other_documents", pa.list_(pa.string()))

DECISIONS = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("rejected_by", pa.string()),  # the first filter in recipe order; "generator" for errors
        pa.field("reason", pa.string()),
    ]
)
