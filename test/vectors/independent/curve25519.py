"""X25519 (RFC 7748) and Ed25519 (RFC 8032) on Python's integers. Not constant time: for test values alone."""

from hashlib import sha512

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)


def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1 % P, 1
    for bit in range(254, -1, -1):
        swap = k >> bit & 1
        if swap:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if swap:
            x2, z2, x3, z3 = x3, z3, x2, z2
    result = (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")
    assert any(result), "low-order point"
    return result


def x25519_public(scalar):
    return x25519(scalar, (9).to_bytes(32, "little"))


# Points of the Edwards curve are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z: RFC 8032, section 5.1.4.
def _add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n, p):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = _add(result, p)
        p = _add(p, p)
        n >>= 1
    return result


def _encode(p):
    inverse = pow(p[2], -1, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(encoded):
    value = int.from_bytes(encoded, "little")
    sign, y = value >> 255, value & (1 << 255) - 1
    assert y < P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_ONE % P
    assert (x * x - square) % P == 0 and not (x == 0 and sign)
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = _decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def _expand(seed):
    digest = sha512(seed).digest()
    return int.from_bytes(digest[:32], "little") & ~7 & (1 << 255) - 1 | 1 << 254, digest[32:]


def _challenge(*parts):
    return int.from_bytes(sha512(b"".join(parts)).digest(), "little") % ORDER


def ed25519_public(seed):
    return _encode(_times(_expand(seed)[0], BASE))


def ed25519_sign(seed, message):
    scalar, prefix = _expand(seed)
    public = _encode(_times(scalar, BASE))
    nonce = _challenge(prefix, message)
    commitment = _encode(_times(nonce, BASE))
    answer = (nonce + _challenge(commitment, public, message) * scalar) % ORDER
    return commitment + answer.to_bytes(32, "little")


def ed25519_verify(public, message, signature):
    """Without the cofactor, as strict verifiers do."""
    answer = int.from_bytes(signature[32:], "little")
    if answer >= ORDER:
        return False
    right = _add(_decode(signature[:32]), _times(_challenge(signature[:32], public, message), _decode(public)))
    return _encode(_times(answer, BASE)) == _encode(right)
