"""The document calls of the official interface: windows in index coordinates, as in the official engine."""

from typing import TYPE_CHECKING, Any

from limbeck.infinigram.manifest import WIDTH_BYTES

if TYPE_CHECKING:
    from limbeck.infinigram.index import Index

Answer = dict[str, Any]


class CompatDocuments:
    """`get_doc_*` and `get_docs_*` of the official engine; removed documents are returned as blocked, without tokens."""

    index: "Index"
    engine: Any
    max_disp_len: int

    def get_total_doc_cnt(self) -> int:
        """Number of documents, including removed ones."""
        return sum(self.engine.shard_documents)

    def get_doc_by_rank(self, s: int, rank: int, max_disp_len: int | None = None) -> Any:
        """The document around the suffix at a rank."""
        return self._one(self.get_docs_by_ranks([(s, rank)], max_disp_len))

    def get_docs_by_ranks(self, list_of_s_and_rank: list[tuple[int, int]], max_disp_len: int | None = None) -> Any:
        """The documents around the suffixes at ranks."""
        length = self.max_disp_len if max_disp_len is None else max_disp_len
        return self._displayed([("rank", s, rank, length // 2, (length + 1) // 2) for s, rank in list_of_s_and_rank], length)

    def get_doc_by_ptr(self, s: int, ptr: int, max_disp_len: int | None = None) -> Any:
        """The document around a byte offset."""
        return self._one(self.get_docs_by_ptrs([(s, ptr)], max_disp_len))

    def get_docs_by_ptrs(self, list_of_s_and_ptr: list[tuple[int, int]], max_disp_len: int | None = None) -> Any:
        """The documents around byte offsets."""
        length = self.max_disp_len if max_disp_len is None else max_disp_len
        return self._displayed([("ptr", s, ptr, length // 2, (length + 1) // 2) for s, ptr in list_of_s_and_ptr], length)

    def get_doc_by_ix(self, doc_ix: int, max_disp_len: int | None = None) -> Any:
        """The first tokens of a document."""
        return self._one(self.get_docs_by_ixs([doc_ix], max_disp_len))

    def get_docs_by_ixs(self, list_of_doc_ix: list[int], max_disp_len: int | None = None) -> Any:
        """The first tokens of documents."""
        length = self.max_disp_len if max_disp_len is None else max_disp_len
        if not positive(length):
            return {"error": "max_disp_len must be a positive integer"}
        return self._by_numbers([(doc_ix, length) for doc_ix in list_of_doc_ix])

    def get_doc_by_rank_2(self, s: int, rank: int, needle_len: int, max_ctx_len: int) -> Any:
        """The document around the suffix at a rank, with up to `max_ctx_len` tokens before and after the needle."""
        return self._one(self.get_docs_by_ranks_2([(s, rank, needle_len, max_ctx_len)]))

    def get_docs_by_ranks_2(self, requests: list[tuple[int, int, int, int]]) -> Any:
        """`get_doc_by_rank_2` for several requests."""
        return self._around("rank", requests)

    def get_doc_by_ptr_2(self, s: int, ptr: int, needle_len: int, max_ctx_len: int) -> Any:
        """The document around a byte offset, with up to `max_ctx_len` tokens before and after the needle."""
        return self._one(self.get_docs_by_ptrs_2([(s, ptr, needle_len, max_ctx_len)]))

    def get_docs_by_ptrs_2(self, requests: list[tuple[int, int, int, int]]) -> Any:
        """`get_doc_by_ptr_2` for several requests."""
        return self._around("ptr", requests)

    def get_doc_by_ix_2(self, doc_ix: int, max_ctx_len: int) -> Any:
        """The first tokens of a document."""
        return self._one(self.get_docs_by_ixs_2([(doc_ix, max_ctx_len)]))

    def get_docs_by_ixs_2(self, requests: list[tuple[int, int]]) -> Any:
        """`get_doc_by_ix_2` for several requests."""
        if not all(natural(most) for _, most in requests):
            return {"error": "max_ctx_len must be a non-negative integer"}
        return self._by_numbers(requests)

    def _around(self, kind: str, requests: list[tuple[int, int, int, int]]) -> Any:
        for _, _, needle, context in requests:
            if not natural(needle):
                return {"error": "needle_len must be a non-negative integer"}
            if not natural(context):
                return {"error": "max_ctx_len must be a non-negative integer"}
        return self._displayed([(kind, s, at, context, needle + context) for s, at, needle, context in requests], 1)

    def _displayed(self, requests: list[tuple[str, int, int, int, int]], length: Any) -> Any:
        if not positive(length):
            return {"error": "max_disp_len must be a positive integer"}
        tokens = self.engine.shard_tokens
        width = WIDTH_BYTES[self.index.dtype]
        documents = []
        for kind, s, at, before, after in requests:
            if not (type(s) is int and 0 <= s < len(tokens)):
                return {"error": f"s must be an integer in range [0, {len(tokens)})"}
            if kind == "rank" and not (type(at) is int and 0 <= at < tokens[s]):
                return {"error": f"rank must be an integer in range [0, {tokens[s]})"}
            if kind == "ptr" and not (type(at) is int and 0 <= at < tokens[s] * width and at % width == 0):
                return {"error": f"ptr must be a multiple of {width} in range [0, {tokens[s] * width})"}
            documents.append(self._window(s, self.engine.pointer(s, at) if kind == "rank" else at, before, after))
        return documents

    def _by_numbers(self, requests: list[tuple[int, int]]) -> Any:
        counts = self.engine.shard_documents
        documents = []
        for doc_ix, most in requests:
            if not (type(doc_ix) is int and 0 <= doc_ix < sum(counts)):
                return {"error": f"doc_ix must be an integer in range [0, {sum(counts)})"}
            s, local = 0, doc_ix
            while local >= counts[s]:
                local -= counts[s]
                s += 1
            _, begin, end = self.engine.place(s, local)
            documents.append(self._document(s, (local, begin, end), (begin, min(end, begin + most)), begin))
        return documents

    def _window(self, s: int, pointer: int, before: int, after: int) -> Answer:
        place = self.engine.place_at(s, pointer)
        position = max(pointer // WIDTH_BYTES[self.index.dtype], place[1])  # a separator counts as the start of its document
        span = (max(place[1], position - before), min(place[2], position + after))
        return self._document(s, place, span, position)

    def _document(self, s: int, place: tuple[int, int, int], span: tuple[int, int], position: int) -> Answer:
        local, begin, end = place
        blocked = self.engine.is_removed(s, local)
        ids = [] if blocked else self.engine.text(s, *span).tolist()
        return {
            "doc_ix": sum(self.engine.shard_documents[:s]) + local,
            "doc_len": end - begin,
            "disp_len": len(ids),
            "needle_offset": position - span[0],
            "metadata": "" if blocked else self.engine.metadata(s, local).decode("utf-8", errors="replace"),
            "token_ids": ids[::-1] if self.index.version == 5 else ids,
            "blocked": blocked,
        }

    @staticmethod
    def _one(documents: Any) -> Any:
        return documents if isinstance(documents, dict) else documents[0]


def positive(value: Any) -> bool:
    """Whether a value is a positive int."""
    return type(value) is int and value > 0


def natural(value: Any) -> bool:
    """Whether a value is a non-negative int."""
    return type(value) is int and value >= 0


def filled(value: Any) -> bool:
    """Whether a value is a non-empty list."""
    return type(value) is list and len(value) > 0


def bad_display(number: Any, length: Any) -> Answer | None:
    """The official error for a bad number of documents or a bad window length."""
    if not positive(number):
        return {"error": "maxnum must be a positive integer"}
    if not positive(length):
        return {"error": "max_disp_len must be a positive integer"}
    return None
