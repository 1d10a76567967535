"""Sentences of libraries and of the system, as the end of a message of ours."""

from __future__ import annotations


def clause(sentence: str) -> str:
    """Return a sentence without its capital and its full stop; an acronym stays as it is.

    >>> clause("Connection refused"), clause("URL has an invalid label.")
    ('connection refused', 'URL has an invalid label')
    """
    words = sentence.removesuffix(".")
    return words[:1].lower() + words[1:] if words[1:2].islower() else words


def words_of(error: OSError) -> str:
    """Return what the system said."""
    return clause(error.strerror or str(error))
