"""Errors of an index and of queries; both are `LimbeckError`s with one clear sentence."""

from limbeck._infinigram import BadIndex, BadQuery

__all__ = ["BadIndex", "BadQuery"]
