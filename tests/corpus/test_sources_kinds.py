"""Seed tasks, draws, labelled tables and conversations as sources: ids, records, splits, and every fault."""

import json
import random
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from helpers.byte_tokenizer import byte_tokenizer
from helpers.paths import ROOT
from helpers.source_rows import WORDS, read, reasons, used, write_lines
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.pipelines import recipe as recipes


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


# draws


def test_draws_have_fixed_ids_and_no_text(tokenizer: Tokenizer) -> None:
    rows = read(tokenizer, "draws", seed=7, count=3, split={"train": 1, "dev": 1, "test": 1})
    assert {row["origin"]: (row["source_id"], row["split"]) for row in rows} == {
        "draw 0": ("f74f4be37979b641", "dev"),
        "draw 1": ("4c2fa4907529bc63", "train"),
        "draw 2": ("c38727a77107fadb", "test"),
    }
    assert {(row["document"], row["document_tokens"], row["record"], tuple(row["salient"])) for row in rows} == {
        ("", 0, None, ())
    }
    assert all(row["group"] == row["source_id"] for row in rows)


def test_draws_of_another_seed_are_other_sources_and_more_draws_keep_the_first(tokenizer: Tokenizer) -> None:
    few, more, other = (
        {row["source_id"] for row in read(tokenizer, "draws", seed, count=count)} for seed, count in ((1, 40), (1, 60), (2, 60))
    )
    assert few < more and not more & other


def test_draws_meet_the_split_exactly(tokenizer: Tokenizer) -> None:
    rows = read(tokenizer, "draws", count=50, split={"train": 30, "dev": 5, "test": 5})
    assert Counter(row["split"] for row in rows) == {"train": 30, "dev": 5, "test": 5, "rejected": 10}
    assert set(reasons(rows).values()) == {"more than the split asks for"}
    assert Counter(row["split"] for row in read(tokenizer, "draws", count=50, split={"train": 0.8, "dev": 0.1, "test": 0.1})) == {
        "train": 40,
        "dev": 5,
        "test": 5,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "greater than or equal to 1"),
        ({}, "Field required"),
        (
            {"count": 2, "split": {"train": 0.8, "dev": 0.1, "test": 0.1}},
            "count is 2, but train, dev, test need at least one each",
        ),
        ({"count": 9, "split": {"train": 8, "dev": 1, "test": 1}}, "count is 9, but the split needs 10"),
        ({"count": 9, "max_source_tokens": 5}, "unknown key 'max_source_tokens'"),
    ],
)
def test_draws_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(SourcesConfig).validate_python({"kind": "draws", **fields})


# seed tasks


def test_seed_tasks_in_every_published_form(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_lines(
        tmp_path / "seeds.jsonl",
        [
            {"instruction": "Name a wheel.", "input": "", "output": "Spoked.", "topic": "cars"},
            {"instruction": "Translate this parser.", "input": "parser a b", "output": "Zerteiler"},
            {
                "id": "seed_task_0",
                "instruction": "Tune the violin string.",
                "instances": [{"input": "A4", "output": "440"}, {"input": "A5", "output": "880"}],
                "is_classification": False,
            },
            {"instruction": "Light a lantern."},
        ],
    )
    rows = used(read(tokenizer, "seeds", path=path))
    assert {origin: (row["document"], row["reference"]) for origin, row in rows.items()} == {
        "seeds.jsonl:1": ("Name a wheel.", "Spoked."),
        "seeds.jsonl:2": ("Translate this parser.\n\nparser a b", "Zerteiler"),
        "seeds.jsonl:3": ("Tune the violin string.\n\nA4", "440"),
        "seeds.jsonl:4": ("Light a lantern.", None),
    }
    assert rows["seeds.jsonl:1"]["record"]["topic"] == "cars"
    record = rows["seeds.jsonl:3"]["record"]
    assert (record["input"], record["output"], record["is_classification"]) == ("A4", "440", False)
    assert record["instances"][1] == {"input": "A5", "output": "880"}
    assert rows["seeds.jsonl:4"]["record"] == {"instruction": "Light a lantern.", "input": "", "output": ""}
    assert {origin: row["source_id"] for origin, row in rows.items()} == {
        "seeds.jsonl:1": "c6213517d882abcb",
        "seeds.jsonl:2": "171634b9b272a23d",
        "seeds.jsonl:3": "54226b2b1c9f8e93",
        "seeds.jsonl:4": "aef0093b89ae6e67",
    }


def test_a_task_is_the_same_in_every_file_format(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tasks = [{"instruction": f"Describe the {word}.", "input": f'{word}, "quoted"\nline', "output": "é"} for word in WORDS]
    write_lines(tmp_path / "a.jsonl", tasks)
    (tmp_path / "a.json").write_text(json.dumps(tasks, indent=2))
    pq.write_table(pa.Table.from_pylist(tasks), tmp_path / "a.parquet")
    cells = [
        [f'"{value}"' for value in (task["instruction"], task["input"].replace('"', '""'), task["output"])] for task in tasks
    ]
    lines = [["instruction", "input", "output"], *cells]
    (tmp_path / "a.csv").write_bytes(("\ufeff" + "\r\n".join(",".join(row) for row in lines)).encode())
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(row) for row in lines) + "\n")
    (tmp_path / "semicolon.csv").write_text("\n".join(";".join(row) for row in lines) + "\n")
    found = [
        {row["source_id"]: (row["split"], row["record"]) for row in read(tokenizer, "seeds", path=str(tmp_path / name), **more)}
        for name, more in [(f"a.{suffix}", {}) for suffix in ("jsonl", "json", "parquet", "csv", "tsv")]
        + [("semicolon.csv", {"delimiter": ";"})]
    ]
    assert len(found[0]) == len(tasks) and all(other == found[0] for other in found)


def test_faulty_tasks_cost_one_row_each(tmp_path: Path, tokenizer: Tokenizer) -> None:
    good = [{"instruction": f"Describe the {word}."} for word in WORDS]
    faulty = [
        {"instruction": ""},
        {"instruction": None},
        {"instruction": 5},
        {"task": "x"},
        {"instruction": "a", "input": {"b": 1}},
        {"instruction": "a", "instances": []},
        {"instruction": "a", "instances": ["b"]},
        [1],
        "{",
        '{"instruction": "\\ud800"}',
        {"instruction": good[0]["instruction"], "input": "", "output": None},
        {"instruction": good[0]["instruction"], "output": "another"},
    ]
    rows = read(tokenizer, "seeds", path=write_lines(tmp_path / "s.jsonl", [*good, *faulty]))
    assert len(rows) == len(good) + len(faulty)
    found = reasons(rows)
    assert found.pop("s.jsonl:19").startswith("not JSON")
    assert {int(origin.partition(":")[2]): reason for origin, reason in found.items()} == {
        11: "empty instruction",
        12: "empty instruction",
        13: "instruction is not a text but a int",
        14: "no 'instruction'",
        15: "input is not a text but a dict",
        16: "instances is not a list of {input, output}",
        17: "instances is not a list of {input, output}",
        18: "not a JSON object",
        20: "not UTF-8",
        21: "same content as s.jsonl:1",
    }
    twins = [row for row in used(rows).values() if row["document"] == good[0]["instruction"]]
    assert len(twins) == 2 and twins[0]["split"] == twins[1]["split"]  # equal texts, other fields: two sources of one group


# labelled tables


def test_a_labelled_table_keeps_every_column(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.parquet"
    rows = [
        {
            "text": f"{word} {word}s.",
            "label": place % 2,
            "score": [0.5, float("nan")][place % 2],
            "day": date(2024, 1, 1 + place),
            "price": Decimal("1.50"),
            "tags": [word, None],
            "more": {"a": place},
            "nothing": None,
        }
        for place, word in enumerate(WORDS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = used(read(tokenizer, "labelled", path=str(path), document_column="text", reference_column="label"))
    assert found["rows.parquet:1"]["document"] == "parser parsers." and found["rows.parquet:1"]["reference"] == "1"
    assert found["rows.parquet:1"]["record"] == {
        "text": "parser parsers.",
        "label": 1,
        "score": None,
        "day": "2024-01-02",
        "price": "1.50",
        "tags": ["parser", None],
        "more": {"a": 1},
        "nothing": None,
    }
    bare = used(read(tokenizer, "labelled", path=str(path)))
    assert len(bare) == len(rows)
    assert {(row["document"], row["document_tokens"], row["reference"]) for row in bare.values()} == {("", 0, None)}
    assert all(row["group"] == row["source_id"] for row in bare.values())


def test_a_csv_s_faulty_rows_cost_one_row_each(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.csv"
    good = [f'{place},"{word} {word}s\nof {word}, ""all""",x' for place, word in enumerate(WORDS)]  # two lines each
    faulty = [b"caf\xe9,text,x", b"1,two cells", b"1,2,3,4", b'1,"a"b,x', b"", b"7,,x", b"0," + b"w" * 200_000 + b",x"]
    path.write_bytes(("id,text,label\r\n" + "\r\n".join(good)).encode() + b"\r\n" + b"\r\n".join(faulty) + b"\r\n")
    rows = read(tokenizer, "labelled", path=str(path), document_column="text", max_source_tokens=100)
    assert len(rows) == len(good) + len(faulty) - 1  # a blank line is no row
    assert reasons(rows) == {
        "rows.csv:22": "not UTF-8",
        "rows.csv:23": "wrong number of cells: 2, the header has 3",
        "rows.csv:24": "wrong number of cells: 4, the header has 3",
        "rows.csv:25": "not CSV: ',' expected after '\"'",
        "rows.csv:27": "empty",
        "rows.csv:28": "its first word alone exceeds 100 tokens",
    }
    assert used(rows)["rows.csv:4"]["document"] == 'parser parsers\nof parser, "all"'


def test_quotes_are_letters_where_cells_are_not_quoted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"Open\tx\nSaid it\ty\n')
    with pytest.raises(LimbeckError, match="row that begins on line 2 opens a quote that is never closed"):
        read(tokenizer, "labelled", path=str(path), document_column="text")
    path.write_text('text\tlabel\n"Open\tx\nSaid "so" it\ty\n')
    found = used(read(tokenizer, "labelled", path=str(path), document_column="text", quote=None))
    assert [found[f"rows.tsv:{line}"]["document"] for line in (2, 3)] == ['"Open', 'Said "so" it']


def test_strings_that_are_not_utf8_cost_their_row_wherever_they_are(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [word.encode() for word in WORDS[:4]] + [b"\xff"]
    broken = pa.array(texts, pa.binary()).view(pa.string())
    nested = pa.ListArray.from_arrays(pa.array(range(6), pa.int32()), broken)
    pq.write_table(pa.table({"n": range(5), "tags": nested}), tmp_path / "rows.parquet")
    pq.write_table(pa.table({"n": range(2), "image": [b"\x89PNG"] * 2}), tmp_path / "bytes.parquet")
    assert reasons(read(tokenizer, "labelled", path=str(tmp_path / "rows.parquet"))) == {"rows.parquet:4": "not UTF-8"}
    with pytest.raises(LimbeckError, match="a cell holds bytes: 'image'; omit that column from the table"):
        read(tokenizer, "labelled", path=str(tmp_path / "bytes.parquet"))


def test_a_hugging_face_dataset_is_a_table(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": f"{word} or {word}s?", "label": place} for place, word in enumerate(WORDS)]
    datasets.DatasetDict({"dev": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    fields = {"dataset": str(tmp_path / "saved"), "document_column": "question"}
    found = used(read(tokenizer, "labelled", dataset_split="dev", **fields))
    assert found["saved[dev]:3"]["record"] == rows[3] and len(found) == len(rows)
    with pytest.raises(LimbeckError, match="has no split 'train'; it has dev"):
        read(tokenizer, "labelled", **fields)


# conversations


def turns(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]


def test_conversations_in_both_forms_are_the_same_sources(tmp_path: Path, tokenizer: Tokenizer) -> None:
    system = {"role": "system", "content": "Be brief."}
    talks = [[system, *turns(f"{word} or {word}s?", "A thing.", f"Which {word}?")] for word in WORDS]
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = [[{"from": names[turn["role"]], "value": turn["content"]} for turn in talk] for talk in talks]
    plain = write_lines(tmp_path / "plain.jsonl", [{"id": n, "messages": talk} for n, talk in enumerate(talks)])
    (tmp_path / "shared.json").write_text(json.dumps([{"id": n, "conversations": talk} for n, talk in enumerate(shared)]))
    other = write_lines(tmp_path / "other.jsonl", [{"id": n, "chat": talk} for n, talk in enumerate(talks)])
    found = [
        {row["source_id"]: (row["document"], row["split"], row["record"]) for row in read(tokenizer, "conversations", **fields)}
        for fields in ({"path": plain}, {"path": str(tmp_path / "shared.json")}, {"path": other, "column": "chat"})
    ]
    assert found[0] == found[1] == found[2] and len(found[0]) == len(WORDS)
    assert {(document, record["id"], len(record["messages"])) for document, _, record in found[0].values()} == {
        (f"{word} or {word}s?", n, 4) for n, word in enumerate(WORDS)
    }
    assert all(set(record) == {"id", "messages"} for _, _, record in found[0].values())


def test_malformed_conversations_cost_one_row_each(tmp_path: Path, tokenizer: Tokenizer) -> None:
    good = [{"messages": turns(f"{word} or {word}s?", "A thing.")} for word in WORDS]
    bad: list[tuple[Any, str]] = [
        (None, "no 'messages'"),
        ([], "malformed conversation: it has no turns"),
        ("hello", "malformed conversation: it is not a list of turns"),
        (["hello"], "malformed conversation: turn 1 is not an object"),
        ([{"content": "a"}], "malformed conversation: turn 1 has no role"),
        ([{"role": "tool", "content": "a"}], "malformed conversation: turn 1 has an unknown role 'tool'"),
        ([{"role": "user", "content": None}], "malformed conversation: turn 1 has no text"),
        ([*turns("a"), {"role": "assistant", "content": " \n"}], "malformed conversation: turn 2 has no text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "malformed conversation: turn 1 has no text"),
        (turns("a", "b")[1:], "malformed conversation: turn 1 is the assistant's, out of turn"),
        ([*turns("a"), *turns("b")], "malformed conversation: turn 2 is the user's, out of turn"),
        ([*turns("a", "b"), {"role": "system", "content": "c"}], "malformed conversation: turn 3 is the system's, out of turn"),
        ([{"role": "system", "content": "c"}], "malformed conversation: it has no user turn"),
    ]
    path = write_lines(tmp_path / "c.jsonl", [*good, *({"messages": talk} for talk, _ in bad)])
    assert reasons(read(tokenizer, "conversations", path=path)) == {
        f"c.jsonl:{len(good) + number}": reason for number, (_, reason) in enumerate(bad, 1)
    }


def test_conversations_that_begin_alike_share_a_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talks = [{"messages": turns(f"{word} or {word}s?", answer)} for word in WORDS for answer in ("This.", "That.")]
    rows = list(used(read(tokenizer, "conversations", path=write_lines(tmp_path / "c.jsonl", talks))).values())
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["document"], set()).add(row["split"])
    assert len(rows) == 20 and len(splits) == 10 and all(len(found) == 1 for found in splits.values())


# what all share


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("seeds", "s.jsonl", "", "there are no tasks in s.jsonl"),
        ("seeds", "s.json", "[]", "there are no tasks in s.json"),
        ("seeds", "s.jsonl", '{"task": "a", "id": 1}\n', "s.jsonl has no column 'instruction'; it has id, task"),
        ("seeds", "s.json", '[{"instruction": "a"}, {"instr', "s.json is not valid JSON"),
        ("seeds", "s.json", '[{"instruction": "a"}] [', "s.json is not valid JSON .Extra data"),
        ("seeds", "s.json", '[{"instruction": "a"} {}]', "s.json is not valid JSON .Expecting ','"),
        ("seeds", "s.jsonl", '{"instruction": ""}\n', "none of the 1 rows of s.jsonl is usable .*s.jsonl:1: empty instruction"),
        ("seeds", "s.jsonl", '{"instruction": "a", "vary": 1}\n', "s.jsonl has a column 'vary'"),
        ("seeds", "s.txt", "a", "s.txt is not a table that can be read; convert it to one of .jsonl"),
        ("labelled", "s.csv", "", "there are no rows in s.csv"),
        ("labelled", "s.csv", "a,b\n", "there are no rows in s.csv"),
        ("labelled", "s.csv", "a,b,a\n1,2,3\n", "s.csv has two columns called 'a'"),
        ("labelled", "s.csv", '"a"b,c\n1,2\n', "the header of s.csv is not CSV"),
        ("labelled", "s.parquet", "PAR1", "s.parquet is not a complete Parquet file"),
        ("conversations", "c.jsonl", "\n", "there are no conversations in c.jsonl"),
        ("conversations", "c.jsonl", '{"chat": []}\n', "c.jsonl has no column 'messages'; .*it has chat"),
    ],
)
def test_a_faulty_input_is_one_sentence(
    kind: str, file: str, content: str, message: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(content)
    with pytest.raises(LimbeckError, match=message):
        read(tokenizer, kind, path=file)


@pytest.mark.parametrize("column", ["document_column", "reference_column"])
def test_a_column_that_is_not_there_names_those_that_are(column: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na b,1\n")
    with pytest.raises(LimbeckError, match="rows.csv has no column 'lable'; did you mean 'label'.* It has label, text"):
        read(tokenizer, "labelled", path=str(path), **{column: "lable"})


def test_a_utf16_file_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, message in (("rows.csv", "the header of .*rows.csv is not UTF-8"), ("rows.jsonl", "rows.jsonl:1: not UTF-8")):
        (tmp_path / name).write_bytes('{"text": "a"}\n'.encode("utf-16"))
        with pytest.raises(LimbeckError, match=message):
            read(tokenizer, "labelled", path=str(tmp_path / name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "seeds"}, "either path or dataset"),
        ({"kind": "labelled", "path": "a", "dataset": "b"}, "either path or dataset"),
        ({"kind": "labelled", "path": "a", "delimiter": ";;"}, "should match pattern"),
        ({"kind": "run", "run": "a", "round": "first"}, "'last'"),
        ({"kind": "run", "run": "a", "round": -1}, "greater than or equal to 0"),
        ({"kind": "conversations", "path": "a", "colum": "b"}, "did you mean 'column'"),
    ],
)
def test_nonsense_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(SourcesConfig).validate_python(fields)


CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(["text", "label", "é"]), CELLS), min_size=1, max_size=12), st.integers(0, 99))
def test_every_row_is_a_source_or_has_a_reason(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, given_rows: list[dict[str, Any]], order: int
) -> None:
    rows = [*given_rows, {"text": "The first.", "label": 1}, {"text": "And another one.", "label": 2}]
    folder = tmp_path_factory.mktemp("rows")
    shuffled = random.Random(order).sample(rows, len(rows))
    essences = []
    for number, table in enumerate((rows, shuffled)):
        path = write_lines(folder / f"{number}.jsonl", list(table))
        found = read(tokenizer, "labelled", path=path, document_column="text", vary={"n": {"range": [1, 9]}})
        assert sorted(row["origin"] for row in found) == sorted(f"{number}.jsonl:{line}" for line in range(1, len(rows) + 1))
        assert all(1 <= row["record"]["vary"]["n"] <= 9 for row in found if row["reason"] is None)
        keys = ("source_id", "document", "split", "group", "record")
        essences.append([[row[key] for key in keys] for row in found if row["reason"] is None])
        kinds = Counter(str(row["reason"]).split(" as ")[0] for row in found)
        essences.append([kinds])  # type: ignore[list-item]
    assert essences[:2] == essences[2:]


def test_what_a_source_drew_is_in_its_record_and_changes_no_id(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = write_lines(tmp_path / "t.jsonl", [{"text": f"{word} {word}s."} for word in WORDS])
    tasks = write_lines(tmp_path / "s.jsonl", [{"instruction": f"Describe the {word}."} for word in WORDS])
    vary = {"persona": ["a nurse", "a judge"]}
    for kind, fields in (("jsonl", {"path": texts}), ("seeds", {"path": tasks}), ("draws", {"count": 10})):
        plain, varied = read(tokenizer, kind, **fields), read(tokenizer, kind, vary=vary, **fields)
        assert {row["record"].pop("vary")["persona"] for row in varied} == {"a nurse", "a judge"}
        assert varied == [{**row, "record": row["record"] or {}} for row in plain]


def test_vary_is_absent_from_what_a_run_records_unless_it_is_set() -> None:
    for fields in ({"kind": "text", "path": "a"}, {"kind": "draws", "count": 9}):
        adapter: TypeAdapter[Any] = TypeAdapter(SourcesConfig)
        assert "vary" not in adapter.validate_python(fields).model_dump(mode="json")
        varied = adapter.validate_python({**fields, "vary": {"x": [1, "a"], "y": {"range": [1, 2]}}})
        dumped = varied.model_dump(mode="json")
        assert dumped["vary"] == {"x": [1, "a"], "y": {"range": [1, 2]}}
        assert adapter.validate_python(dumped) == varied


def test_the_page_s_examples_are_valid_and_name_every_kind() -> None:
    page = (ROOT / "docs" / "sources.md").read_text()
    kinds, varied = (yaml_block.split("```")[0] for yaml_block in page.split("```yaml\n")[1:])
    examples = [yaml.safe_load(line)["sources"] for line in kinds.strip().splitlines()] + [yaml.safe_load(varied)["sources"]]
    schema = recipes.json_schema()
    schema = {"$defs": schema["$defs"], **schema["properties"]["sources"]}
    for example in examples:
        TypeAdapter(SourcesConfig).validate_python(example)
        jsonschema.validate(example, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**examples[-1], "vary": {"x": {"files": "a"}}}, schema)
    assert {example["kind"] for example in examples} == set(schema["discriminator"]["mapping"])
