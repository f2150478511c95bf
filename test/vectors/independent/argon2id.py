"""Argon2id, version 1.3: RFC 9106. Lanes run one after another, which changes nothing in the result."""

from hashlib import blake2b
from struct import pack, unpack

M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
ARGON2ID, VERSION, SLICES, BLOCK_BYTES = 2, 0x13, 4, 1024


def _long_hash(data, length):
    """H' of section 3.3."""
    data = pack("<I", length) + data
    if length <= 64:
        return blake2b(data, digest_size=length).digest()
    out, v = b"", blake2b(data).digest()
    while length - len(out) > 64:
        out += v[:32]
        rest = length - len(out)
        v = blake2b(v, digest_size=min(64, rest)).digest()
    return out + v


def _gb(a, b, c, d):
    a = a + b + 2 * (a & M32) * (b & M32) & M64
    d ^= a
    d = (d >> 32 | d << 32) & M64
    c = c + d + 2 * (c & M32) * (d & M32) & M64
    b ^= c
    b = (b >> 24 | b << 40) & M64
    a = a + b + 2 * (a & M32) * (b & M32) & M64
    d ^= a
    d = (d >> 16 | d << 48) & M64
    c = c + d + 2 * (c & M32) * (d & M32) & M64
    b ^= c
    return a, (b >> 63 | b << 1) & M64, c, d


def _permute(v):
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15 = v
    v0, v4, v8, v12 = _gb(v0, v4, v8, v12)
    v1, v5, v9, v13 = _gb(v1, v5, v9, v13)
    v2, v6, v10, v14 = _gb(v2, v6, v10, v14)
    v3, v7, v11, v15 = _gb(v3, v7, v11, v15)
    v0, v5, v10, v15 = _gb(v0, v5, v10, v15)
    v1, v6, v11, v12 = _gb(v1, v6, v11, v12)
    v2, v7, v8, v13 = _gb(v2, v7, v8, v13)
    v3, v4, v9, v14 = _gb(v3, v4, v9, v14)
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


def _xor(left, right):
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(BLOCK_BYTES, "little")


COLUMNS = [[16 * row + 2 * column + half for row in range(8) for half in (0, 1)] for column in range(8)]


def _compress(left, right):
    """G of section 3.5 on blocks of 1024 bytes."""
    mixed = _xor(left, right)
    q = unpack("<128Q", mixed)
    rows = []
    for i in range(0, 128, 16):
        rows += _permute(q[i : i + 16])
    for places in COLUMNS:
        for place, value in zip(places, _permute([rows[p] for p in places])):
            rows[place] = value
    return _xor(pack("<128Q", *rows), mixed)


def argon2id(password, salt, memory_kib, passes, lanes, length, secret=b"", associated=b""):
    sized = b"".join(pack("<I", len(x)) + x for x in (password, salt, secret, associated))
    h0 = blake2b(pack("<6I", lanes, length, memory_kib, passes, VERSION, ARGON2ID) + sized).digest()
    segment = memory_kib // (SLICES * lanes)
    columns = segment * SLICES
    blocks = [[_long_hash(h0 + pack("<II", i, lane), BLOCK_BYTES) for i in (0, 1)] + [None] * (columns - 2) for lane in range(lanes)]
    zero = bytes(BLOCK_BYTES)
    for turn in range(passes):
        for part in range(SLICES):
            for lane in range(lanes):
                # In the first half of the first pass the order of access does not depend on the password.
                independent = turn == 0 and part < SLICES // 2
                for index in range(2 if turn == 0 and part == 0 else 0, segment):
                    column = part * segment + index
                    previous = blocks[lane][column - 1]
                    if independent:
                        if index % 128 == 0 or index == 2:
                            fields = (turn, lane, part, lanes * columns, passes, ARGON2ID, index // 128 + 1)
                            start = pack("<7Q", *fields) + bytes(BLOCK_BYTES - 56)
                            addresses = unpack("<128Q", _compress(zero, _compress(zero, start)))
                        pseudo = addresses[index % 128]
                    else:
                        pseudo = int.from_bytes(previous[:8], "little")
                    j1, j2 = pseudo & M32, pseudo >> 32
                    other = lane if turn == 0 and part == 0 else j2 % lanes
                    # What may be referred to: all finished segments, and of one's own lane what is done of this one.
                    area = (part if turn == 0 else SLICES - 1) * segment
                    if other == lane:
                        area += index - 1
                    elif index == 0:
                        area -= 1
                    place = area - 1 - (area * (j1 * j1 >> 32) >> 32)
                    begin = 0 if turn == 0 else (part + 1) * segment
                    block = _compress(previous, blocks[other][(begin + place) % columns])
                    blocks[lane][column] = block if turn == 0 else _xor(block, blocks[lane][column])
    final = blocks[0][-1]
    for lane in blocks[1:]:
        final = _xor(final, lane[-1])
    return _long_hash(final, length)
