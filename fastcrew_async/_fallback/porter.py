"""Porter's stemmer for English: M. F. Porter, "An algorithm for suffix stripping", 1980, as its author published it."""

from __future__ import annotations

from functools import lru_cache

_STEP_2 = {
    **{"ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al"},
    **{"entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al"},
    **{"iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble"},
    **{"logi": "log"},
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate"),
    *("iti", "ous", "ive", "ize"),
)


@lru_cache(10_000)
def stem(word: str) -> str:
    """The stem of a lower-case word; one that is not of ASCII letters, or of one or two, is its own."""
    if len(word) < 3 or not (word.isascii() and word.isalpha() and word.islower()):
        return word
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = f"{word[:-1]}i"
    for table in (_STEP_2, _STEP_3):
        # The first that fits decides, whether it is replaced or not.
        suffix = next((suffix for suffix in table if word.endswith(suffix)), None)
        if suffix and _measure(word[: -len(suffix)]) > 0:
            word = word[: -len(suffix)] + table[suffix]
    suffix = max((suffix for suffix in _STEP_4 if word.endswith(suffix)), key=len, default="")
    rest = word[: len(word) - len(suffix)]
    if suffix and (suffix != "ion" or rest.endswith(("s", "t"))) and _measure(rest) > 1:
        word = rest
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    suffix = next((suffix for suffix in ("ed", "ing") if word.endswith(suffix)), "")
    rest = word[: len(word) - len(suffix)]
    if not suffix or not _has_vowel(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return f"{rest}e"
    if len(rest) > 1 and rest[-1] == rest[-2] and _consonant(rest, len(rest) - 1) and rest[-1] not in "lsz":
        return rest[:-1]
    return f"{rest}e" if _measure(rest) == 1 and _short(rest) else rest


def _consonant(word: str, at: int) -> bool:
    if word[at] == "y":
        return at == 0 or not _consonant(word, at - 1)
    return word[at] not in "aeiou"


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return sum(_consonant(word, at) and not _consonant(word, at - 1) for at in range(1, len(word)))


def _has_vowel(word: str) -> bool:
    return any(not _consonant(word, at) for at in range(len(word)))


def _short(word: str) -> bool:
    """Consonant, vowel, consonant that is not w, x or y."""
    if len(word) < 3 or word[-1] in "wxy":
        return False
    return [_consonant(word, at) for at in range(len(word) - 3, len(word))] == [True, False, True]
