"""AES (FIPS 197), encryption only, and the three modes the format uses: CTR, CBC-MAC and GCM."""

from struct import pack, unpack


def _tables():
    # The S-box: inverse in GF(2^8) found by walking the powers of 3, then the affine map.
    power, log, value = [0] * 255, [0] * 256, 1
    for exponent in range(255):
        power[exponent] = value
        log[value] = exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
    sbox = []
    for byte in range(256):
        inverse = power[-log[byte] % 255] if byte else 0
        spread = inverse
        for turn in range(1, 5):
            spread ^= (inverse << turn | inverse >> 8 - turn) & 0xFF
        sbox.append(spread ^ 0x63)
    # One table of SubBytes and MixColumns together for each place in a column.
    columns = []
    for s in sbox:
        double = (s << 1) ^ (0x11B if s & 0x80 else 0)
        columns.append((double << 24 | s << 16 | s << 8 | double ^ s) & 0xFFFFFFFF)
    turned = [[(c >> 8 * t | c << 32 - 8 * t) & 0xFFFFFFFF for c in columns] for t in range(4)]
    return sbox, turned


SBOX, (T0, T1, T2, T3) = _tables()


def expand(key):
    """Round keys of a 16- or 32-byte key, as a flat list of words."""
    length = len(key) // 4
    assert length in (4, 8)
    words = list(unpack(f">{length}I", key))
    constant = 1
    for i in range(length, 4 * (length + 7)):
        word = words[-1]
        if i % length == 0:
            word = (word << 8 | word >> 24) & 0xFFFFFFFF
        if i % length == 0 or (length == 8 and i % 8 == 4):
            word = SBOX[word >> 24] << 24 | SBOX[word >> 16 & 255] << 16 | SBOX[word >> 8 & 255] << 8 | SBOX[word & 255]
        if i % length == 0:
            word ^= constant << 24
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        words.append(words[i - length] ^ word)
    return words


def encrypt_words(w, a, b, c, d):
    a ^= w[0]
    b ^= w[1]
    c ^= w[2]
    d ^= w[3]
    last = len(w) - 4
    for i in range(4, last, 4):
        a, b, c, d = (
            T0[a >> 24] ^ T1[b >> 16 & 255] ^ T2[c >> 8 & 255] ^ T3[d & 255] ^ w[i],
            T0[b >> 24] ^ T1[c >> 16 & 255] ^ T2[d >> 8 & 255] ^ T3[a & 255] ^ w[i + 1],
            T0[c >> 24] ^ T1[d >> 16 & 255] ^ T2[a >> 8 & 255] ^ T3[b & 255] ^ w[i + 2],
            T0[d >> 24] ^ T1[a >> 16 & 255] ^ T2[b >> 8 & 255] ^ T3[c & 255] ^ w[i + 3],
        )
    s = SBOX
    return (
        (s[a >> 24] << 24 | s[b >> 16 & 255] << 16 | s[c >> 8 & 255] << 8 | s[d & 255]) ^ w[last],
        (s[b >> 24] << 24 | s[c >> 16 & 255] << 16 | s[d >> 8 & 255] << 8 | s[a & 255]) ^ w[last + 1],
        (s[c >> 24] << 24 | s[d >> 16 & 255] << 16 | s[a >> 8 & 255] << 8 | s[b & 255]) ^ w[last + 2],
        (s[d >> 24] << 24 | s[a >> 16 & 255] << 16 | s[b >> 8 & 255] << 8 | s[c & 255]) ^ w[last + 3],
    )


def encrypt_block(key, block):
    return pack(">4I", *encrypt_words(expand(key), *unpack(">4I", block)))


def xor(left, right):
    assert len(left) == len(right)
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def ctr(key, nonce, data):
    """MEGA's CTR: the counter block is the 8-byte nonce and a 64-bit block number from 0."""
    w = expand(key)
    n0, n1 = unpack(">2I", nonce)
    words = []
    for number in range(-(-len(data) // 16)):
        words += encrypt_words(w, n0, n1, number >> 32, number & 0xFFFFFFFF)
    return xor(data, pack(f">{len(words)}I", *words)[: len(data)])


def cbc_mac(key, start, data):
    """The last block of CBC over data, filled with zeros to whole blocks; start is the IV."""
    w = expand(key)
    words = unpack(f">{-(-len(data) // 16) * 4}I", data + bytes(-len(data) % 16))
    a, b, c, d = unpack(">4I", start)
    for i in range(0, len(words), 4):
        a, b, c, d = encrypt_words(w, a ^ words[i], b ^ words[i + 1], c ^ words[i + 2], d ^ words[i + 3])
    return pack(">4I", a, b, c, d)


def _ghash(h, aad, ciphertext):
    # SP 800-38D counts bits from the left, so the "lowest" coefficient is the highest bit.
    y = 0
    lengths = pack(">2Q", 8 * len(aad), 8 * len(ciphertext))
    data = aad + bytes(-len(aad) % 16) + ciphertext + bytes(-len(ciphertext) % 16) + lengths
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i : i + 16], "big")
        product, shifted = 0, h
        for bit in range(127, -1, -1):
            if y >> bit & 1:
                product ^= shifted
            shifted = shifted >> 1 ^ (0xE1 << 120 if shifted & 1 else 0)
        y = product
    return y.to_bytes(16, "big")


def gcm_seal(key, nonce, aad, plaintext):
    """AES-GCM with a 12-byte nonce: ciphertext and the 16-byte tag after it."""
    w = expand(key)
    first = unpack(">3I", nonce)
    words = []
    for number in range(-(-len(plaintext) // 16)):
        words += encrypt_words(w, *first, number + 2)
    ciphertext = xor(plaintext, pack(f">{len(words)}I", *words)[: len(plaintext)])
    h = int.from_bytes(pack(">4I", *encrypt_words(w, 0, 0, 0, 0)), "big")
    mask = pack(">4I", *encrypt_words(w, *first, 1))
    return ciphertext + xor(_ghash(h, aad, ciphertext), mask)


def gcm_open(key, nonce, aad, sealed):
    # CTR undoes itself, so sealing the ciphertext yields the plaintext; the tag is then made again.
    plaintext = gcm_seal(key, nonce, b"", sealed[:-16])[:-16]
    assert gcm_seal(key, nonce, aad, plaintext) == sealed, "GCM tag"
    return plaintext
