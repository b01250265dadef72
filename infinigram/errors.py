"""What can be wrong with an index, or with what is asked of it; both are `LimbeckError`s of one clear sentence."""

from limbeck._infinigram import BadIndex, BadQuery

__all__ = ["BadIndex", "BadQuery"]
