"""The UTF-8 sequences of Autobahn's cases 6.5 to 6.23, which go back to Markus Kuhn's UTF-8 decoder stress test."""

from __future__ import annotations

KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
"""Five Greek letters in eleven bytes, ending between code points after 2, 5, 7, 9 and 11 of them."""

_TRUNCATED = [
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
]


def _starts(first: int, end: int) -> bytes:
    """Start bytes, each before a space."""
    return b"".join(bytes((start, 0x20)) for start in range(first, end))


def _non_characters() -> list[bytes]:
    """The last two code points of the planes, in the order in which Autobahn lists them."""
    found = [b"\xef\xbf\xbe", b"\xef\xbf\xbf"]
    for plane in range(1, 17):
        found += [chr(plane << 16 | low).encode() for low in (0xFFFE, 0xFFFF)]
    return found


VALID, INVALID = True, False

GROUPS: list[tuple[str, list[tuple[bool, bytes]]]] = [
    (
        "6.5",
        [
            (VALID, b"hello$world"),
            (VALID, "hello¢world".encode()),
            (VALID, "hello€world".encode()),
            (VALID, "hello\U00024b62world".encode()),
            (VALID, KOSME),
        ],
    ),
    ("6.6", [(end in (2, 5, 7, 9, 11), KOSME[:end]) for end in range(1, 12)]),
    ("6.7", [(VALID, text.encode()) for text in ("\0", "\u0080", "\u0800", "\U00010000")]),
    ("6.8", [(INVALID, b"\xf8\x88\x80\x80\x80"), (INVALID, b"\xfc\x84\x80\x80\x80\x80")]),
    ("6.9", [(VALID, text.encode()) for text in ("\u007f", "\u07ff", "\uffff", "\U0010ffff")]),
    (
        "6.10",
        [
            (INVALID, b"\xf7\xbf\xbf\xbf"),
            (INVALID, b"\xfb\xbf\xbf\xbf\xbf"),
            (INVALID, b"\xfd\xbf\xbf\xbf\xbf\xbf"),
        ],
    ),
    (
        "6.11",
        [
            *[(VALID, text.encode()) for text in ("\ud7ff", "\ue000", "\ufffd", "\U0010ffff")],
            (INVALID, b"\xf4\x90\x80\x80"),
        ],
    ),
    (
        "6.12",
        [
            (INVALID, b"\x80"),
            (INVALID, b"\xbf"),
            *[(INVALID, (b"\x80\xbf" * 3)[:length]) for length in range(2, 7)],
            (INVALID, bytes(range(0x80, 0xBF))),
        ],
    ),
    (
        "6.13",
        [
            (INVALID, _starts(first, end))
            for first, end in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
        ],
    ),
    ("6.14", [(INVALID, sequence) for sequence in _TRUNCATED]),
    ("6.15", [(INVALID, b"".join(_TRUNCATED))]),
    ("6.16", [(INVALID, b"\xfe"), (INVALID, b"\xff"), (INVALID, b"\xfe\xfe\xff\xff")]),
    (
        "6.17",
        [
            (INVALID, b"\xc0\xaf"),
            (INVALID, b"\xe0\x80\xaf"),
            (INVALID, b"\xf0\x80\x80\xaf"),
            (INVALID, b"\xf8\x80\x80\x80\xaf"),
            (INVALID, b"\xfc\x80\x80\x80\x80\xaf"),
        ],
    ),
    (
        "6.18",
        [
            (INVALID, b"\xc1\xbf"),
            (INVALID, b"\xe0\x9f\xbf"),
            (INVALID, b"\xf0\x8f\xbf\xbf"),
            (INVALID, b"\xf8\x87\xbf\xbf\xbf"),
            (INVALID, b"\xfc\x83\xbf\xbf\xbf\xbf"),
        ],
    ),
    (
        "6.19",
        [
            (INVALID, b"\xc0\x80"),
            (INVALID, b"\xe0\x80\x80"),
            (INVALID, b"\xf0\x80\x80\x80"),
            (INVALID, b"\xf8\x80\x80\x80\x80"),
            (INVALID, b"\xfc\x80\x80\x80\x80\x80"),
        ],
    ),
    (
        "6.20",
        [
            (INVALID, chr(surrogate).encode(errors="surrogatepass"))
            for surrogate in (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF)
        ],
    ),
    (
        "6.21",
        [
            (INVALID, (chr(high) + chr(low)).encode(errors="surrogatepass"))
            for high in (0xD800, 0xDB7F, 0xDB80, 0xDBFF)
            for low in (0xDC00, 0xDFFF)
        ],
    ),
    ("6.22", [(VALID, sequence) for sequence in _non_characters()]),
    ("6.23", [(VALID, chr(code).encode()) for code in range(0xFFF9, 0x10000)]),
]
"""By Autobahn's number: the sequences, and whether each is valid."""
