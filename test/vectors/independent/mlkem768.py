"""ML-KEM-768 (FIPS 203) and X-Wing (draft-connolly-cfrg-xwing-kem), both ways."""

from hashlib import sha3_256, sha3_512, shake_128, shake_256

from curve25519 import x25519, x25519_public

Q, N, K, ETA, DU, DV = 3329, 256, 3, 2, 10, 4
XWING_LABEL = b"\\.//^\\"


def _reverse7(i):
    return int(f"{i:07b}"[::-1], 2)


ZETAS = [pow(17, _reverse7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _reverse7(i) + 1, Q) for i in range(128)]


def _ntt(polynomial):
    f, i, length = list(polynomial), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length] = (f[j] - t) % Q
                f[j] = (f[j] + t) % Q
        length //= 2
    return f


def _inverse_ntt(transformed):
    f, i, length = list(transformed), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % Q
                f[j + length] = zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def _multiply(f, g):
    product = []
    for i in range(128):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        product += [(a0 * b0 + a1 * b1 * GAMMAS[i]) % Q, (a0 * b1 + a1 * b0) % Q]
    return product


def _add(*polynomials):
    return [sum(c) % Q for c in zip(*polynomials)]


def _subtract(f, g):
    return [(a - b) % Q for a, b in zip(f, g)]


def _pack(polynomial, bits):
    value = sum(c << bits * i for i, c in enumerate(polynomial))
    return value.to_bytes(N * bits // 8, "little")


def _unpack(data, bits):
    value = int.from_bytes(data, "little")
    return [value >> bits * i & (1 << bits) - 1 for i in range(N)]


def _compress(polynomial, bits):
    return [((c << bits + 1) + Q) // (2 * Q) % (1 << bits) for c in polynomial]


def _decompress(polynomial, bits):
    return [(2 * c * Q + (1 << bits)) >> bits + 1 for c in polynomial]


def _uniform(rho, column, row):
    """SampleNTT: coefficients below q out of SHAKE128, three bytes for two tries."""
    stream, polynomial, place = shake_128(rho + bytes([column, row])).digest(3 * 1024), [], 0
    while len(polynomial) < N:
        b0, b1, b2 = stream[place : place + 3]
        place += 3
        for candidate in (b0 | (b1 & 15) << 8, b1 >> 4 | b2 << 4):
            if candidate < Q and len(polynomial) < N:
                polynomial.append(candidate)
    return polynomial


def _small(seed, number):
    """SamplePolyCBD with eta 2 out of the PRF."""
    bits = int.from_bytes(shake_256(seed + bytes([number])).digest(64 * ETA), "little")
    polynomial = []
    for i in range(N):
        four = bits >> 4 * i & 15
        polynomial.append(((four & 1) + (four >> 1 & 1) - (four >> 2 & 1) - (four >> 3)) % Q)
    return polynomial


def _matrix(rho):
    return [[_uniform(rho, column, row) for column in range(K)] for row in range(K)]


def _encrypt(public, message, coins):
    t = [_unpack(public[384 * i : 384 * (i + 1)], 12) for i in range(K)]
    a = _matrix(public[384 * K :])
    y = [_ntt(_small(coins, i)) for i in range(K)]
    errors = [_small(coins, K + i) for i in range(K)]
    u = [
        _add(_inverse_ntt(_add(*(_multiply(a[row][column], y[row]) for row in range(K)))), errors[column])
        for column in range(K)
    ]
    v = _add(
        _inverse_ntt(_add(*(_multiply(t[i], y[i]) for i in range(K)))),
        _small(coins, 2 * K),
        _decompress(_unpack(message, 1), 1),
    )
    return b"".join(_pack(_compress(f, DU), DU) for f in u) + _pack(_compress(v, DV), DV)


def keygen(d, z):
    """Returns the encapsulation key (1184 bytes) and the decapsulation key (2400)."""
    seed = sha3_512(d + bytes([K])).digest()
    rho, sigma = seed[:32], seed[32:]
    a = _matrix(rho)
    s = [_ntt(_small(sigma, i)) for i in range(K)]
    e = [_ntt(_small(sigma, K + i)) for i in range(K)]
    t = [_add(*(_multiply(a[row][column], s[column]) for column in range(K)), e[row]) for row in range(K)]
    public = b"".join(_pack(f, 12) for f in t) + rho
    return public, b"".join(_pack(f, 12) for f in s) + public + sha3_256(public).digest() + z


def encapsulate(public, m):
    seed = sha3_512(m + sha3_256(public).digest()).digest()
    return _encrypt(public, m, seed[32:]), seed[:32]


def decapsulate(secret, ciphertext):
    s = [_unpack(secret[384 * i : 384 * (i + 1)], 12) for i in range(K)]
    public, h, z = secret[1152:2336], secret[2336:2368], secret[2368:]
    u = [_decompress(_unpack(ciphertext[320 * i : 320 * (i + 1)], DU), DU) for i in range(K)]
    v = _decompress(_unpack(ciphertext[320 * K :], DV), DV)
    w = _subtract(v, _inverse_ntt(_add(*(_multiply(s[i], _ntt(u[i])) for i in range(K)))))
    m = _pack(_compress(w, 1), 1)
    seed = sha3_512(m + h).digest()
    if _encrypt(public, m, seed[32:]) != ciphertext:
        return shake_256(z + ciphertext).digest(32)
    return seed[:32]


def _xwing_expand(seed):
    expanded = shake_256(seed).digest(96)
    public, secret = keygen(expanded[:32], expanded[32:64])
    return public, secret, expanded[64:]


def _xwing_combine(ss_m, ss_x, ct_x, public_x):
    return sha3_256(ss_m + ss_x + ct_x + public_x + XWING_LABEL).digest()


def xwing_public(seed):
    public, _, scalar = _xwing_expand(seed)
    return public + x25519_public(scalar)


def xwing_encapsulate(public, coins):
    """coins: 32 bytes for ML-KEM, then the ephemeral X25519 private key."""
    public_m, public_x = public[:1184], public[1184:]
    ct_m, ss_m = encapsulate(public_m, coins[:32])
    ct_x = x25519_public(coins[32:])
    ss_x = x25519(coins[32:], public_x)
    return ct_m + ct_x, _xwing_combine(ss_m, ss_x, ct_x, public_x)


def xwing_decapsulate(seed, ciphertext):
    _, secret, scalar = _xwing_expand(seed)
    ct_m, ct_x = ciphertext[:1088], ciphertext[1088:]
    return _xwing_combine(decapsulate(secret, ct_m), x25519(scalar, ct_x), ct_x, x25519_public(scalar))
