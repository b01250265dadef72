"""Exact n-gram queries over a corpus of any size: suffix arrays in the infini-gram format (Liu et al. 2024).

>>> from limbeck import infinigram
>>> infinigram.build(["texts/"], "index", infinigram.Settings(tokenizer="bytes"))
>>> index = infinigram.Index.open("index")
>>> index.count("synthetic data")
"""

from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.compat import InfiniGramEngine
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.index import Index
from limbeck.infinigram.maintain import append, compact, remove
from limbeck.infinigram.verify import verify

__all__ = ["BadIndex", "BadQuery", "Index", "InfiniGramEngine", "Settings", "append", "build", "compact", "remove", "verify"]
