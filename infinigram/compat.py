"""The interface of the official engine (`infini_gram.engine`, 2.6) over ours: same constructor, methods, results and errors.

Answers are exact unless `compat=True` selects the official approximations: next tokens are estimated from `max_support` reads,
and CNF queries use at most `max_clause_freq` occurrences of a clause, order clauses per shard and count doubled terms twice.
Known errors of the official engine (reversed indexes, document borders, rank 0, windows at separators) are not reproduced.
"""

import math
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.infinigram.compat_documents import Answer, CompatDocuments, bad_display, filled, natural, positive
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.index import Index
from limbeck.infinigram.layout import Layout, locate
from limbeck.infinigram.manifest import WIDTH_BYTES

_UNKNOWN_LOG = -10000.0  # log-probability reported for a token that does not occur


class InfiniGramEngine(CompatDocuments):
    """A drop-in for the official class; as there, a method with bad arguments returns {'error': sentence}.

    The prefetch depths and the block size are accepted and ignored. Constructing raises AssertionError for bad arguments, and
    BadIndex for bad files.
    """

    def __init__(
        self,
        index_dir: str | list[str],
        eos_token_id: int,
        vocab_size: int = 65535,
        version: int = 4,
        token_dtype: str = "u16",
        load_to_ram: bool = False,
        ds_prefetch_depth: int = 1,
        sa_prefetch_depth: int = 3,
        od_prefetch_depth: int = 3,
        bow_ids_path: str | None = None,
        attribution_block_size: int = 512,
        precompute_unigram_logprobs: bool = False,
        prev_shards_by_index_dir: Any = None,
        max_support: int = 1000,
        max_clause_freq: int = 50000,
        max_diff_tokens: int = 100,
        maxnum: int = 1,
        max_disp_len: int = 1000,
        *,
        compat: bool = False,
    ) -> None:
        folders = [index_dir] if type(index_dir) is str else index_dir
        assert type(folders) is list and all(type(folder) is str for folder in folders)
        assert type(eos_token_id) is int and 0 <= eos_token_id < vocab_size
        assert type(load_to_ram) is bool
        assert type(ds_prefetch_depth) is int and ds_prefetch_depth >= 0
        assert type(sa_prefetch_depth) is int and ds_prefetch_depth <= sa_prefetch_depth
        assert type(od_prefetch_depth) is int and od_prefetch_depth >= 0
        for most in (max_support, max_clause_freq, max_diff_tokens, maxnum, max_disp_len):
            assert type(most) is int and most > 0
        if token_dtype not in WIDTH_BYTES:
            raise ValueError(f"Unsupported token dtype: {token_dtype}")
        layout = self._layout([Path(folder) for folder in folders])
        if version not in (4, 5):
            raise BadIndex(f"version {version!r} is not 4 or 5; open a version 6 folder as 4, or as 5 if it is reversed")
        for name, given in (("dtype", token_dtype), ("version", version)):
            if layout.manifest.get(name, given) != given:
                raise BadIndex(f"{name} is {given!r}, but the manifest has {layout.manifest[name]!r}; use that value")
        index = Index(layout, token_dtype, version, eos_token_id, "ram" if load_to_ram else "mmap", True)
        self._settle(index, vocab_size, (max_support, max_clause_freq, max_diff_tokens, maxnum, max_disp_len))
        self.compat = compat
        self._unigrams = precompute_unigram_logprobs
        if bow_ids_path is not None:
            self._bow_ids |= {int(line) for line in Path(bow_ids_path).read_text().split()}

    @classmethod
    def of(cls, index: Index, vocab_size: int, *, compat: bool = False) -> "InfiniGramEngine":
        """The official interface over an open index, with the official limits."""
        engine = cls.__new__(cls)
        engine._settle(index, vocab_size, (1000, 50000, 100, 1, 1000))
        engine.compat = compat
        engine._unigrams = True
        return engine

    def _layout(self, folders: list[Path]) -> Layout:
        return locate(folders, official_order=True)

    def _settle(self, index: Index, vocab_size: int, limits: tuple[int, int, int, int, int]) -> None:
        self.index = index
        self.engine = index.engine
        self.vocab_size = vocab_size
        self.token_id_max = (1 << 8 * WIDTH_BYTES[index.dtype]) - 1
        self.max_support, self.max_clause_freq, self.max_diff_tokens, self.maxnum, self.max_disp_len = limits
        self._bow_ids: set[int] = set()

    # --- counts ---

    def find(self, input_ids: list[int]) -> Answer:
        """Count and ranks of the ids' occurrences."""
        if not self._are_ids(input_ids):
            return self._not_ids("input_ids")
        count, ranges = self.engine.find(input_ids)
        return {"cnt": count, "segment_by_shard": ranges}

    def count(self, input_ids: list[int]) -> Answer:
        """Number of occurrences of the ids."""
        if not self._are_ids(input_ids):
            return self._not_ids("input_ids")
        return {"count": self.engine.count(input_ids), "approx": False}

    def prob(self, prompt_ids: list[int], cont_id: int) -> Answer:
        """Probability of an id after a prompt; -1 if the prompt never occurs."""
        bad = self._bad_prompt(prompt_ids, cont_id)
        if bad is not None:
            return bad
        prompts, continuations = self.engine.prob(prompt_ids, cont_id)
        return {"prompt_cnt": prompts, "cont_cnt": continuations, "prob": continuations / prompts if prompts else -1.0}

    def ntd(self, prompt_ids: list[int], max_support: int | None = None) -> Answer:
        """Distribution of the ids that follow a prompt."""
        support = self.max_support if max_support is None else max_support
        if not positive(support):
            return {"error": "max_support must be a positive integer"}
        if not self._are_ids(prompt_ids):
            return self._not_ids("prompt_ids")
        return self._next(prompt_ids, support)

    def infgram_prob(self, prompt_ids: list[int], cont_id: int) -> Answer:
        """Probability of an id after the longest suffix of a prompt that occurs."""
        bad = self._bad_prompt(prompt_ids, cont_id)
        if bad is not None:
            return bad
        suffix, prompts, continuations = self.engine.infgram_prob(prompt_ids, cont_id)
        probability = continuations / prompts if prompts else -1.0
        return {"prompt_cnt": prompts, "cont_cnt": continuations, "prob": probability, "suffix_len": suffix}

    def infgram_ntd(self, prompt_ids: list[int], max_support: int | None = None) -> Answer:
        """Distribution of the ids that follow the longest suffix of a prompt that occurs."""
        support = self.max_support if max_support is None else max_support
        if not positive(support):
            return {"error": "max_support must be a positive integer"}
        if not self._are_ids(prompt_ids):
            return self._not_ids("prompt_ids")
        suffix, _ = self.engine.longest_suffix(prompt_ids)
        return {**self._next(prompt_ids[len(prompt_ids) - suffix :], support), "suffix_len": suffix}

    def _next(self, prompt_ids: list[int], support: int) -> Answer:
        if self.compat:
            prompts, ids, counts, approximate = self.engine.estimate_next_tokens(prompt_ids, support)
        else:
            prompts, ids, counts, approximate = self.engine.next_tokens(prompt_ids)
        by_id = {
            token: {"cont_cnt": count, "prob": count / prompts}
            for token, count in zip(ids.tolist(), counts.tolist(), strict=True)
        }
        return {"prompt_cnt": prompts, "result_by_token_id": by_id, "approx": approximate}

    # --- clauses ---

    def find_cnf(self, cnf: Any, max_clause_freq: int | None = None, max_diff_tokens: int | None = None) -> Answer:
        """Byte offsets, per shard, of places where all clauses occur close together."""
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        if "error" in found:
            return found
        hits = found["hits"]
        pointers = [hits[hits[:, 0] == shard, 1].tolist() for shard in range(len(self.engine.shard_tokens))]
        nothing = any(sum(self.engine.count(term) for term in clause) == 0 for clause in cnf)
        return {"cnt": found["cnt"], "approx": found["approx"], "ptrs_by_shard": [] if nothing else pointers}

    def count_cnf(self, cnf: Any, max_clause_freq: int | None = None, max_diff_tokens: int | None = None) -> Answer:
        """Number of places where all clauses occur close together."""
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        return found if "error" in found else {"count": found["cnt"], "approx": found["approx"]}

    def _cnf(self, cnf: Any, max_clause_freq: int | None, max_diff_tokens: int | None) -> Answer:
        most = self.max_clause_freq if max_clause_freq is None else max_clause_freq
        distance = self.max_diff_tokens if max_diff_tokens is None else max_diff_tokens
        if not positive(most):
            return {"error": "max_clause_freq must be a positive integer"}
        if not positive(distance):
            return {"error": "max_diff_tokens must be a positive integer"}
        if not (filled(cnf) and all(filled(clause) and all(filled(t) and self._are_ids(t) for t in clause) for clause in cnf)):
            return {"error": f"cnf must be a non-empty, triply-nested list of integers in range [0, {self.token_id_max}]"}
        # matches are defined within documents: only the official count knows terms that cross their borders
        across = any(self.token_id_max in term for clause in cnf for term in clause)
        count, approximate, hits = self.engine.cnf(cnf, distance, most if self.compat else 0, 19260817, self.compat or across)
        return {"cnt": count, "approx": approximate, "hits": hits}

    # --- documents of queries ---

    def search_docs(self, input_ids: list[int], maxnum: int | None = None, max_disp_len: int | None = None) -> Answer:
        """Documents of occurrences sampled with replacement."""
        number = self.maxnum if maxnum is None else maxnum
        length = self.max_disp_len if max_disp_len is None else max_disp_len
        bad = bad_display(number, length)
        if bad is not None:
            return bad
        if not self._are_ids(input_ids):
            return self._not_ids("input_ids")
        count, hits = self.engine.draw(input_ids, number, 0, secrets.randbits(62), True, False)
        documents = [self._window(int(s), int(at), length // 2, (length + 1) // 2) for s, at, _, _ in hits]
        return {"cnt": count, "approx": False, "idxs": hits[:, 3].tolist(), "documents": documents}

    def search_docs_cnf(
        self,
        cnf: Any,
        maxnum: int | None = None,
        max_disp_len: int | None = None,
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
    ) -> Answer:
        """Documents of places where all clauses occur close together, sampled with replacement."""
        number = self.maxnum if maxnum is None else maxnum
        length = self.max_disp_len if max_disp_len is None else max_disp_len
        bad = bad_display(number, length)
        if bad is not None:
            return bad
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        if "error" in found:
            return found
        hits = found["hits"]
        drawn = [secrets.randbelow(len(hits)) for _ in range(number)] if len(hits) else []
        documents = [self._window(int(hits[i, 0]), int(hits[i, 1]), length // 2, (length + 1) // 2) for i in drawn]
        return {"cnt": found["cnt"], "approx": found["approx"], "idxs": drawn, "documents": documents}

    # --- texts ---

    def creativity(self, input_ids: list[int]) -> Answer:
        """For every position, the end of the longest span from there that occurs."""
        if not self._are_ids(input_ids):
            return self._not_ids("input_ids")
        return {"rs": self.engine.longest_matches(input_ids).tolist()}

    def attribute(self, input_ids: list[int], delim_ids: list[int], min_len: int, max_cnt: int, enforce_bow: bool) -> Answer:
        """Maximal spans that occur, with all their positions."""
        for name, ids in (("input_ids", input_ids), ("delim_ids", delim_ids)):
            if not self._are_ids(ids):
                return self._not_ids(name)
        if not natural(min_len):
            return {"error": "min_len must be a non-negative integer"}
        if not positive(max_cnt):
            return {"error": "max_cnt must be a positive integer"}
        if type(enforce_bow) is not bool:
            return {"error": "enforce_bow must be a boolean"}
        starts = [token in self._bow_ids for token in input_ids] if enforce_bow else []
        spans = self.engine.spans(input_ids, delim_ids, starts, min_len, min(max_cnt, (1 << 62)), 1 << 62)
        logs = self._log_probabilities(input_ids) if self._unigrams else None
        return {
            "spans": [
                {
                    "l": begin,
                    "r": end,
                    "length": end - begin,
                    "count": count,
                    "unigram_logprob_sum": _UNKNOWN_LOG * (end - begin) if logs is None else sum(logs[begin:end]),
                    "docs": [{"s": shard, "ptr": pointer} for shard, pointer in places],
                }
                for begin, end, count, places in spans
            ]
        }

    def compute_unigram_counts(self, s: int) -> list[int]:
        """Occurrences of every id, for indexes with one shard."""
        assert len(self.engine.shard_tokens) == 1 and s == 0, "unigram counts exist for the whole index only, not per shard"
        ids = self.vocab_size if self.index.dtype == "u32" else self.token_id_max + 1
        return list(self.engine.unigram_counts(ids).tolist())

    def _log_probabilities(self, ids: list[int]) -> list[float]:
        counts = self.engine.count_batch(ids, np.arange(len(ids) + 1)).tolist()
        total = self.index.tokens
        return [math.log(count / total) if count > 0 else _UNKNOWN_LOG for count in counts]

    # --- checks ---

    def _are_ids(self, ids: Any) -> bool:
        if type(ids) is not list:
            return False
        return not ids or (set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= self.token_id_max)

    def _not_ids(self, name: str) -> Answer:
        return {"error": f"{name} must be a list of integers in range [0, {self.token_id_max}]"}

    def _bad_prompt(self, prompt_ids: Any, cont_id: Any) -> Answer | None:
        if not self._are_ids(prompt_ids):
            return {"error": f"prompt_ids must be a non-empty list of integers in range [0, {self.token_id_max}]"}
        if not (type(cont_id) is int and 0 <= cont_id <= self.token_id_max):
            return {"error": f"cont_id must be an integer in range [0, {self.token_id_max}]"}
        return None
