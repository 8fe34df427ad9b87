"""Damages files at random, as disks, transfers, editors and attackers do; the same seed, the same damage."""

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

TOKENS = (
    b"0",
    b"-1",
    b"nan",
    b"1e309",
    b"9" * 400,
    b"null",
    b"",
    b"\x00",
    b"\xff\xfe",
    b"<",
    b'"',
    b"{",
    b"]",
    b":",
)
"""Put in place of a piece of a text: borders of numbers, and what a parser stumbles over."""

VALUES = (
    None,
    True,
    0,
    -1,
    10**30,
    0.5,
    1e308,
    float("nan"),
    "",
    "\ud800",
    "7",
    "x" * 5000,
    [],
    {},
    [[]],
    [1, 2, 3, 4],
)
"""Put in place of a value of JSON."""


def mutate(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """`content` with one to three kinds of damage; `others`: files of which a piece may be spliced in."""
    for _ in range(random.randint(1, 3)):
        kind = _replace_value if content[:1] == b"{" and random.random() < 0.5 else random.choice(_KINDS)
        content = kind(content, others, random)
    return content


def _flip_bits(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 8, 64)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _zero(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:start] + bytes(end - start) + content[end:]


def _delete(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:end] + content[start:end] * random.choice((1, 1, 20)) + content[end:]


def _splice(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(others)
    start, end = _slice(other, random)
    place = random.randrange(len(content) + 1)
    return content[:place] + other[start:end] + content[place:]


def _replace_number(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """One number of a text by a token, or by another number."""
    places = [place for place, byte in enumerate(content) if byte in b"0123456789"]
    if not places:
        return _insert(content, others, random)
    start = end = random.choice(places)
    while end < len(content) and content[end] in b"0123456789.":
        end += 1
    number = random.choice((*TOKENS, b"%d" % random.randrange(-(10**6), 10**6)))
    return content[:start] + number + content[end:]


def _insert(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.choice(TOKENS) + content[place:]


def _swap(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Two lines of a text, or two halves."""
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return content[len(content) // 2 :] + content[: len(content) // 2]
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _replace_value(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A value, a key or a member of valid JSON, which stays valid; another file is damaged as a text."""
    try:
        document = json.loads(content)
    except ValueError:
        return _replace_number(content, others, random)
    nodes: list[dict[str, Any] | list[Any]] = []
    _collect(document, nodes)
    node = random.choice(nodes) if nodes else []
    place: Any = random.choice(list(node) if isinstance(node, dict) else range(len(node))) if node else None
    if place is None:
        return json.dumps(random.choice(VALUES)).encode()
    if random.random() < 0.2:
        del node[place]
    elif random.random() < 0.2:
        node[place] = copy.deepcopy(random.choice(nodes))
    else:
        node[place] = random.choice(VALUES)
    return json.dumps(document).encode()


def _collect(value: Any, nodes: list[dict[str, Any] | list[Any]]) -> None:
    if isinstance(value, dict | list):
        nodes.append(value)
        for member in value.values() if isinstance(value, dict) else value:
            _collect(member, nodes)


_KINDS = (
    _flip_bits,
    _truncate,
    _zero,
    _delete,
    _repeat,
    _splice,
    _replace_number,
    _insert,
    _swap,
    _replace_value,
)


def _slice(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(start + random.choice((1, 4, 16, 64, 512)), len(content))
