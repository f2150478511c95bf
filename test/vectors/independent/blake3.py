"""BLAKE3, default hash mode, 32 bytes out: after the BLAKE3 paper, section 2."""

from struct import pack, unpack

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK_BYTES, BLOCK_BYTES = 1024, 64
MASK = 0xFFFFFFFF


def _schedule():
    permutation = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
    order, rounds = tuple(range(16)), []
    for _ in range(7):
        rounds.append(order)
        order = tuple(order[p] for p in permutation)
    return rounds


ROUNDS = _schedule()


def _g(a, b, c, d, x, y):
    a = a + b + x & MASK
    d ^= a
    d = (d >> 16 | d << 16) & MASK
    c = c + d & MASK
    b ^= c
    b = (b >> 12 | b << 20) & MASK
    a = a + b + y & MASK
    d ^= a
    d = (d >> 8 | d << 24) & MASK
    c = c + d & MASK
    b ^= c
    return a, (b >> 7 | b << 25) & MASK, c, d


def _compress(chaining, block, counter, length, flags):
    m = unpack("<16I", block)
    v0, v1, v2, v3, v4, v5, v6, v7 = chaining
    v8, v9, v10, v11 = IV[:4]
    v12, v13, v14, v15 = counter & MASK, counter >> 32, length, flags
    for s in ROUNDS:
        v0, v4, v8, v12 = _g(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _g(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _g(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _g(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _g(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _g(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _g(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _g(v3, v4, v9, v14, m[s[14]], m[s[15]])
    return v0 ^ v8, v1 ^ v9, v2 ^ v10, v3 ^ v11, v4 ^ v12, v5 ^ v13, v6 ^ v14, v7 ^ v15


def _chunk(data, number, root):
    chaining, blocks = IV, max(1, -(-len(data) // BLOCK_BYTES))
    for i in range(blocks):
        block = data[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES]
        flags = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | root) if i == blocks - 1 else 0)
        chaining = _compress(chaining, block + bytes(BLOCK_BYTES - len(block)), number, len(block), flags)
    return chaining


def _subtree(data, first_chunk, root):
    if len(data) <= CHUNK_BYTES:
        return _chunk(data, first_chunk, root)
    # The left side takes the largest power of two of whole chunks that leaves something to the right.
    chunks = 1 << ((len(data) - 1) // CHUNK_BYTES).bit_length() - 1
    split = chunks * CHUNK_BYTES
    left = _subtree(data[:split], first_chunk, 0)
    right = _subtree(data[split:], first_chunk + chunks, 0)
    return _compress(IV, pack("<16I", *left, *right), 0, BLOCK_BYTES, PARENT | root)


def blake3(data):
    return pack("<8I", *_subtree(data, 0, ROOT))
