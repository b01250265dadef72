"""Exact n-gram queries over a corpus of any size: suffix arrays in the infini-gram format (Liu et al. 2024).

>>> import infinigram
>>> infinigram.build(["corpus/"], "index", infinigram.Settings(tokenizer="bytes"))
>>> index = infinigram.Index.open("index")
>>> index.count("synthetic data")
"""

from infinigram.build import Settings, build
from infinigram.compat import InfiniGramEngine
from infinigram.errors import BadIndex, BadQuery
from infinigram.index import Index
from infinigram.maintain import append, compact, remove
from infinigram.verify import verify

__all__ = ["BadIndex", "BadQuery", "Index", "InfiniGramEngine", "Settings", "append", "build", "compact", "remove", "verify"]
