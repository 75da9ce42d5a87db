"""What CASEI and ACCENTI compare: the one fold of the catalogue and of rows of features."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

_MARKS = re.compile("[\u0300-\u036f]+")


def fold_case(text: str | None) -> str | None:
    """Return text without regard to case: what CASEI compares.

    By way of upper case, which any database can say too, and "ß" and "SS" are still the same.
    """
    return None if text is None else text.upper().lower()


def fold_accents(text: str | None) -> str | None:
    """Return text without accents: what ACCENTI compares."""
    if text is None:
        return None
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", text)))


FOLDS: Mapping[str, Callable[[str | None], str | None]] = {
    "casei": fold_case,
    "accenti": fold_accents,
}
