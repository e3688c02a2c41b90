"""Values that the protocol can carry: texts, numbers, and what JSON makes of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["json_objects", "json_values", "seconds", "texts"]

#: Numbers at which codecs part ways: the widths of machine integers, and where floats lose whole numbers.
_EDGES = (0, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1)
_FLOAT_EDGES = (-0.0, 0.1, 5e-324, 1.7976931348623157e308, 1e16, 1e22)
#: Texts that break what counts bytes as characters, ends strings at NUL, or cuts at line ends.
_NASTY = ("", "\0", "\n", "\r\n", "é", "\u2028", "\ufeff", "😀", "e\u0301", '"', "\\", "null", "NaN", "{}")


def texts(*, min_size: int = 0, max_size: int = 12) -> st.SearchStrategy[str]:
    """Draw texts that UTF-8 can carry, nasty ones among them. Sizes are in characters."""
    nasty = [text for text in _NASTY if min_size <= len(text) <= max_size]
    plain = st.text(min_size=min_size, max_size=max_size)
    return plain | st.sampled_from(nasty) if nasty else plain


def json_values(*, max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Draw JSON values that arrive as they were sent: no NaN, no infinity, no lone surrogate."""
    floats = st.floats(allow_nan=False, allow_infinity=False)
    numbers = st.integers() | floats | st.sampled_from([*_EDGES, *_FLOAT_EDGES])
    scalars = st.none() | st.booleans() | numbers | texts()
    nested = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=max_leaves,
    )
    # Once more alone, because deep in a structure hardly any value of so many would be an edge.
    return nested | st.sampled_from([*_EDGES, *_FLOAT_EDGES, *_NASTY])


def json_objects(*, max_leaves: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Draw JSON objects."""
    return st.dictionaries(texts(), json_values(max_leaves=max_leaves), max_size=3)


def seconds(*, low: float = 0.0, high: float = 30.0) -> st.SearchStrategy[float]:
    """Draw durations on a grid of half seconds, bounds included.

    On a grid things fall due at the same moment, which is where an order matters; among continuous times nothing ever
    coincides.
    """
    return st.integers(round(low * 2), round(high * 2)).map(lambda halves: halves / 2)
