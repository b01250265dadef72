"""Which clauses a text meets, token by token.

The phrases of all clauses are one trie over characters, and a state holds every node that a suffix of the text has reached, so a
phrase is found however the text was tokenised. Tokens matter only for what is proposed next: the usual tokenisation of each
phrase says which token continues it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from limbeck.cluster.engines.constraint import Constraint, forms, is_word

Encode = Callable[[str], Sequence[int]]
_ROOT = 0


class State(NamedTuple):
    """What is known of one text; clauses are bits."""

    met: int = 0  # a phrase occurs
    pending: int = 0  # a phrase occurs if the word does not go on
    nodes: tuple[int, ...] = ()  # partial matches that a clause which is not met still needs
    word: bool = False  # whether the last character belongs to a word
    undecoded: bytes = b""  # the beginning of a character
    tail: str = ""  # as much as a stop string can have begun in
    stopped: bool = False

    @property
    def reached(self) -> int:
        """The clauses of which a phrase occurs if the text ends here."""
        return self.met | self.pending


class Tracker:
    """The automaton of one constraint. `pieces` gives the bytes of a token, `encode` the tokens of a text.

    `stop` strings end a text. Advancing costs O(characters of the token · partial matches).
    """

    def __init__(self, constraint: Constraint, pieces: Callable[[int], bytes], encode: Encode, stop: Sequence[str] = ()) -> None:
        """Build the trie and the tables of proposals."""
        self._pieces, self._stop, self._whole = pieces, tuple(stop), constraint.whole_words
        self._tail = max((len(text) for text in self._stop), default=1) - 1
        self.positive = sum(1 << i for i, clause in enumerate(constraint.clauses) if clause.positive)
        self.negative = sum(1 << i for i, clause in enumerate(constraint.clauses) if not clause.positive)
        self._children: list[dict[str, int]] = [{}]
        self._below: list[int] = [0]  # the clauses that need more characters after this node
        self._ends: list[int] = [0]  # the clauses of which a phrase ends at this node
        self._next: dict[tuple[int, bytes], dict[int, int]] = {}  # node and begun character → token → clauses
        self._share: dict[tuple[int, bytes], list[tuple[int, float]]] = {}  # → clauses, and the share of tokens written
        self._first: dict[int, int] = {}  # token that begins a phrase → clauses
        self._first_spaced: dict[int, int] = {}  # the same for phrases after a space
        for number, clause in enumerate(constraint.clauses):
            for form in dict.fromkeys(form for phrase in clause.phrases for form in forms(phrase)):
                self._insert(form, 1 << number)
                if clause.positive:
                    self._propose(form, f" {form}", 1 << number, encode, self._first_spaced)
                    self._propose(form, form, 1 << number, encode, self._first)

    def _insert(self, form: str, clause: int) -> None:
        node = _ROOT
        for character in form:
            self._below[node] |= clause
            if character not in self._children[node]:
                self._children[node][character] = len(self._children)
                self._children.append({})
                self._below.append(0)
                self._ends.append(0)
            node = self._children[node][character]
        self._ends[node] |= clause

    def _propose(self, form: str, text: str, clause: int, encode: Encode, first: dict[int, int]) -> None:
        """Enter the tokens of `text`, which is `form`, perhaps after a space, at the states in which they are due."""
        tokens = list(encode(text))
        if not tokens:
            return
        first[tokens[0]] = first.get(tokens[0], 0) | clause
        written, rest = "", b""
        for place, token in enumerate(tokens[:-1], start=1):
            more, rest = _decoded(rest + self._pieces(token))
            written += more
            begun = written.lstrip() if form[0] != " " else written
            node = _ROOT
            for character in begun:
                node = self._children[node].get(character, -1)
                if node < 0:
                    return  # the tokenizer changes the text, so its tokens do not lead to the phrase
            due = self._first if not begun and not rest else self._next.setdefault((node, rest), {})
            due[tokens[place]] = due.get(tokens[place], 0) | clause
            if begun or rest:
                self._share.setdefault((node, rest), []).append((clause, place / len(tokens)))

    def advance(self, state: State, token: int) -> State:
        """The state after one more token."""
        text, undecoded = _decoded(state.undecoded + self._pieces(token))
        met, pending, nodes, word = state.met, state.pending, state.nodes, state.word
        for character in text:
            was_word, word = word, is_word(character)
            if pending:
                met, pending = met if word else met | pending, 0
            begins = not (self._whole and was_word and word)
            reached = [self._children[node].get(character) for node in (*nodes, *((_ROOT,) if begins else ()))]
            alive = [node for node in reached if node is not None]
            for node in alive:
                if self._whole and word:
                    pending |= self._ends[node] & ~met
                else:
                    met |= self._ends[node]
            nodes = tuple(dict.fromkeys(node for node in alive if self._below[node] & ~met))
        if not self._stop:
            return State(met, pending, nodes, word, undecoded)
        seen = state.tail + text
        stopped = any(stop in seen for stop in self._stop)
        return State(met, pending, nodes, word, undecoded, seen[-self._tail :] if self._tail else "", stopped)

    def may_end(self, state: State) -> bool:
        """Whether the text meets every clause if it ends here."""
        return state.reached & self.positive == self.positive and not state.reached & self.negative

    def count(self, state: State) -> int:
        """How many positive clauses are met if the text ends here."""
        return (state.reached & self.positive).bit_count()

    def proposals(self, state: State) -> set[int]:
        """The tokens that begin or continue a phrase of a positive clause that is not met."""
        wanted = self.positive & ~state.reached
        return {token for token, clauses in self._due(state) if clauses & wanted} if wanted else set()

    def _due(self, state: State) -> Iterator[tuple[int, int]]:
        for node in (*state.nodes, _ROOT):
            yield from self._next.get((node, state.undecoded), {}).items()
        if not state.undecoded:
            yield from self._first_spaced.items()
            if not (state.word and self._whole):
                yield from self._first.items()

    def progress(self, state: State) -> float:
        """The largest share of its tokens that a phrase of a clause that is not met has, if it has begun; otherwise 0."""
        wanted = self.positive & ~state.reached
        shares = (pair for node in (*state.nodes, _ROOT) for pair in self._share.get((node, state.undecoded), ()))
        return max((share for clauses, share in shares if clauses & wanted), default=0.0)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of a sequence, cut at the first stop string."""
        text = b"".join(map(self._pieces, tokens)).decode(errors="replace")
        for stop in self._stop:
            text = text.split(stop, 1)[0]
        return text


def _decoded(data: bytes) -> tuple[str, bytes]:
    """The characters of UTF-8 text, and the bytes of a last one that is not complete; invalid bytes become U+FFFD."""
    for cut in range(len(data), max(len(data) - 4, -1), -1):
        head, rest = data[:cut], data[cut:]
        if not rest or _begins_character(rest):
            try:
                return head.decode(), rest
            except UnicodeDecodeError:
                continue
    return data.decode(errors="replace"), b""


def _begins_character(rest: bytes) -> bool:
    """Whether the bytes are the beginning of one longer character."""
    wanted = 2 if 0xC2 <= rest[0] <= 0xDF else 3 if 0xE0 <= rest[0] <= 0xEF else 4 if 0xF0 <= rest[0] <= 0xF4 else 0
    return len(rest) < wanted and all(0x80 <= byte <= 0xBF for byte in rest[1:])
