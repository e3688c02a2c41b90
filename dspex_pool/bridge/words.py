"""Words and sentences of English text: splitting, stems, senses.

The tables are small on purpose: they hold what any text uses, not what one text needs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WORD", "content_words", "sense", "split_sentences", "stem"]

#: A word, with the apostrophes and hyphens in it, or a number.
WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

# Looking behind keeps a long row of full stops from being tried from each of them.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]?[A-Z0-9])")
_OPENING = "(\"'\u201c\u2018"
#: A longer "word" is data; it is compared as it stands.
_LONGEST_WORD = 40
#: Three letters, a vowel among them, must stay (king, spring), and "ee" before the ending is none (speed).
_ENDING = re.compile(r"^(?=.*[aeiouy].*(?:ing|ed|est)$).{3,}?(?<!e)(ing|ed|est)$|(?<=.{5})(ly)$")
_DOUBLED = re.compile(r"([bdfgmnprtz])\1$")


def _first_of_line(table: str) -> dict[str, str]:
    """Map every word of a table to the first word of its line."""
    lines = (line.split() for line in table.strip().splitlines())
    return {word: line[0] for line in lines for word in line}


_ABBREVIATION_LIST = """
    al approx ca capt col dr e.g etc fig gen i.e jr lt mr mrs ms no prof rev sr st u.k u.s vol vs
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
_STOP_WORD_LIST = """
    a about after all also am an and any are as at be been before being but by can cannot could did do does doing
    done each for from further get had has have having he her hers him his how i if in into is it its itself
    just many may me might more most much must my never no nor not of off on once one only or other our out over
    own please s same she should so some such t than that the their them then there these they this those
    through to too under until up upon us was we were what when where which while who whom whose why will
    with would you your
"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())
#: Forms that no ending explains, after the word that stands for them.
_IRREGULAR = _first_of_line(
    """
    become became
    begin began begun
    birth born
    breed bred
    bring brought
    build built
    child children
    come came
    death died dies
    draw drew drawn
    eat ate eaten
    fall fell fallen
    feed fed
    fight fought
    find found
    fly flew flown
    foot feet
    freeze froze frozen
    give gave given
    grow grew grown
    hide hid hidden
    hold held
    keep kept
    know knew known
    lay laid
    lead led
    leave left
    lose lost
    make made
    man men
    mouse mice
    rise rose risen
    run ran
    sell sold
    send sent
    sing sang sung
    sink sank sunk
    speak spoke spoken
    swim swam
    take took taken
    teach taught
    think thought
    tooth teeth
    use used
    win won
    woman women
    write wrote written
    """
)
#: Everyday words of one sense, as ``stem`` leaves them; the first of each line stands for all.
_SENSES = _first_of_line(
    """
    begin start commenc
    build construct erect
    buy purchas
    child son daughter
    cost pric pay
    countri nation
    death die dead
    deep depth
    end finish complet
    fast quick rapid speed velociti
    find discover
    heavi weigh weight mass
    high height tall
    hom hous
    job profession occupation
    king rul monarch
    larg big hug
    liv resid inhabit
    long length
    mak produc creat
    marri wif husband spous
    nam call nicknam
    near clos
    old age aged
    peopl person human
    publish releas
    receiv get obtain
    show demonstrat
    us emploi
    wid width
    writ author
    """
)


def split_sentences(text: str) -> list[str]:
    """Split ``text`` into sentences, each on one line.

    Blank lines end a sentence, single line breaks do not. Full stops in numbers, after initials and after
    common abbreviations end none.
    """
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        sentences.extend(_split_paragraph(" ".join(paragraph.split())))
    return sentences


def _split_paragraph(paragraph: str) -> Iterable[str]:
    start = 0
    for end in _SENTENCE_END.finditer(paragraph):
        if paragraph[end.start()] == "." and _is_abbreviation(paragraph[start : end.start()]):
            continue
        yield paragraph[start : end.end()].strip()
        start = end.end()
    if paragraph[start:]:
        yield paragraph[start:]


def _is_abbreviation(before: str) -> bool:
    """Tell whether the full stop after ``before`` belongs to an abbreviation or to an initial."""
    last = before.rpartition(" ")[2].lstrip(_OPENING)
    return last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")


def stem(word: str) -> str:
    """Reduce a word to what its common forms share: ``invented`` and ``inventing`` to ``invent``."""
    word = re.sub(r"['\u2019]s?$", "", word.lower())
    if len(word) > _LONGEST_WORD:
        return word
    word = _without_plural(_IRREGULAR.get(word, word))
    if ending := _ENDING.search(word):
        word = _DOUBLED.sub(r"\1", word[: -len(ending[1] or ending[2])])
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") else word


def _without_plural(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "ches", "shes", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@lru_cache(maxsize=4096)
def sense(word: str) -> str:
    """Return the stem of a word, or the one that stands for all stems of its sense."""
    stemmed = stem(word)
    return _SENSES.get(stemmed, stemmed)


def content_words(text: str) -> list[str]:
    """Return the words of ``text`` that carry meaning, in order, in lower case, each once."""
    words = (match.group().lower() for match in WORD.finditer(text))
    return list(dict.fromkeys(word for word in words if word not in _STOP_WORDS))
