"""Start and stop vLLM's processes: settings of its CPU build and of GPUs, and its last log lines."""

import asyncio
import json
import multiprocessing
import os
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerFast

from limbeck.cluster.engines.chat import end_tokens, load_tokenizer
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, describe, resolve
from limbeck.cluster.engines.protocol import EngineDied
from limbeck.cluster.engines.vllm.config import CPU_BATCH_TOKENS, CPU_CACHE_BYTES, GPU_SHARE, VllmConfig
from limbeck.cluster.engines.vllm.watchdog import Watchdog
from limbeck.corpus.errors import LimbeckError, last_line
from limbeck.corpus.extras import require

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
PROGRESS_TOKENS = 64  # tokens between progress marks of a long answer
_TAIL_BYTES = 200_000
_ERROR = re.compile(r"\b(\w*(?:Error|Exception)\b.*|.*[Oo]ut of memory.*)")
_CONSEQUENCE = re.compile("EngineDeadError|core initialization failed|See root cause")
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # for the one position beyond the context, which is never used
}


@dataclass
class Started:
    """A running vLLM: its asynchronous engine, the loop that drives it, the tokenizer and the end tokens."""

    llm: Any
    loop: asyncio.AbstractEventLoop
    tokenizer: PreTrainedTokenizerFast
    end_tokens: frozenset[int]
    context_tokens: int
    lora: Any
    processes: tuple[Any, ...]
    watchdog: Watchdog

    def last_log_lines(self) -> str:
        """How vLLM's processes exited, and the last error that they logged."""
        ends = [process.exitcode for process in self.processes if process.exitcode]
        told = _told()
        how = f"vLLM's engine process exited with code {ends[0]}" if ends else "vLLM's engine failed"
        return f"{how}: {told}" if told else how

    def close(self) -> None:
        """Stop the processes, the event loop and the watchdog."""
        stopping = asyncio.run_coroutine_threadsafe(_shut(self.llm), self.loop)
        stopping.result(60)
        self.llm = None  # its finaliser complains when it runs at interpreter exit
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.watchdog.release()


def start(config: VllmConfig) -> Started:
    """Start vLLM; see `vllm.build` for what it raises."""
    require(f"an engine of kind vllm (model {config.model})", "vllm")
    folder = resolve(config.model)
    tokenizer = load_tokenizer(folder, config.trust_remote_code)
    context = min(describe(folder).context_tokens, config.context_tokens or NO_LIMIT_TOKENS)
    os.environ.update(_QUIET)
    watchdog = Watchdog()
    before = set(multiprocessing.active_children())
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="vllm").start()
    try:
        llm = _result(asyncio.run_coroutine_threadsafe(_launch(config, folder, context), loop), config)
    except BaseException:
        watchdog.release()
        loop.call_soon_threadsafe(loop.stop)
        raise
    watchdog.settle()
    return Started(
        llm=llm,
        loop=loop,
        tokenizer=tokenizer,
        end_tokens=end_tokens(tokenizer, *_end_configs(folder, config)),
        context_tokens=context,
        lora=_lora(config),
        processes=tuple(set(multiprocessing.active_children()) - before),
        watchdog=watchdog,
    )


async def _launch(config: VllmConfig, folder: Path, context: int) -> Any:
    """The engine, started within the loop that owns its tasks."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    particulars = _on_cpu(config, context) if on_cpu else _on_gpu(config)
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": config.dtype,
        "load_format": "safetensors",
        "max_model_len": context + 1,  # a pair as long as the context would leave no room for the token that vLLM must draw
        "max_num_seqs": config.max_sequences,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "distributed_executor_backend": "mp" if config.processes > 1 else "uni",
        "enable_prefix_caching": config.prefix_caching,
        "enforce_eager": _eager_on_cpu(config) if on_cpu else bool(config.enforce_eager),
        "quantization": config.quantization,
        "trust_remote_code": config.trust_remote_code,
        "generation_config": "vllm",  # sampling comes from the recipe, not from the model's defaults
        "stream_interval": PROGRESS_TOKENS,
        "disable_log_stats": True,
        "max_num_batched_tokens": config.batch_tokens,
        "max_logprobs": config.max_logprobs,
        **particulars,
    }
    if (adapter := config.adapter()) is not None:
        arguments |= _adapter(adapter)
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))


def _on_cpu(config: VllmConfig, context: int) -> dict[str, Any]:
    """The cache, as many threads as this worker has (Ray sets one per process), and every prompt in one step.

    A prompt that is spread over steps, with a seed, crashes the CPU build (0.32): it rewinds the offset of the request's random
    generator, and CPU generators have no offset.
    """
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // config.processes))
    return {
        "kv_cache_memory_bytes": config.cache_bytes or CPU_CACHE_BYTES,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context + 1, config.batch_tokens or CPU_BATCH_TOKENS),
    }


def _on_gpu(config: VllmConfig) -> dict[str, Any]:
    share = config.gpu_memory_utilization or GPU_SHARE * min(1.0, _reserved_gpus() or 1.0)
    found: dict[str, Any] = {"gpu_memory_utilization": share}
    return found if config.cache_bytes is None else {**found, "kv_cache_memory_bytes": config.cache_bytes}


def _reserved_gpus() -> float:
    """GPUs that Ray has reserved for this process; 0 outside of Ray."""
    import ray

    if not ray.is_initialized():
        return 0.0
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))


def _result(future: "Future[Any]", config: VllmConfig) -> Any:
    """The engine; raises a one-sentence error if it could not be started."""
    try:
        return future.result()
    except (ValueError, NotImplementedError, ImportError) as error:
        raise LimbeckError(f"vLLM does not accept {config.model} with these settings: {last_line(error)}") from error
    except LimbeckError:
        raise
    except Exception as error:  # its processes exited, for any reason
        raise EngineDied(f"vLLM could not start {config.model}: {_told() or last_line(error)}") from error


def _lora(config: VllmConfig) -> Any:
    if (adapter := config.adapter()) is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(adapter.resolve()))


def _adapter(folder: Path) -> dict[str, Any]:
    """Settings of an adapter that vLLM needs at start.

    The rank is rounded up to one with supported kernels. Only the adapted modules are prepared: an output layer that is prepared
    without an adapter fails on log-probabilities of prompts.
    """
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    rank, modules = int(settings["r"]), settings.get("target_modules")
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": next((kernel for kernel in LORA_RANKS if kernel >= rank), rank),
        "lora_target_modules": sorted(modules) if isinstance(modules, list) else None,
    }


def _eager_on_cpu(config: VllmConfig) -> bool:
    """Eager, since compilation takes two minutes; but pipeline stages are only connected by compilation (0.32)."""
    return config.pipeline_parallel_size == 1 if config.enforce_eager is None else config.enforce_eager


def _end_configs(folder: Path, config: VllmConfig) -> list[Any]:
    """The model's config and generation config, either of which may name end tokens."""
    from transformers import GenerationConfig

    found: list[Any] = [AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code, local_files_only=True)]
    if (folder / "generation_config.json").exists():
        found.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
    return found


def _told() -> str:
    """The last error that this process and its children wrote to standard error, if that is a file (as in a worker)."""
    try:
        place = Path(os.readlink("/proc/self/fd/2"))
        with place.open("rb") as stream:
            stream.seek(max(0, place.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [match[1] for match in (_ERROR.search(line) for line in lines if "vllm" in line or "EngineCore" in line) if match]
    causes = [error for error in errors if not _CONSEQUENCE.search(error)]
    return (causes or errors or [""])[-1][:300]


async def _shut(llm: Any) -> None:
    llm.shutdown()
