"""RSA keys out of a stream of bytes, their PKCS#8 DER (RFC 5208, 8017 A.1.2), and OAEP with SHA-256 (RFC 8017 §7.1)."""

from hashlib import sha256
from math import gcd, lcm
from typing import NamedTuple

from aes import xor

EXPONENT = 65537
OID_RSA = bytes.fromhex("06092a864886f70d010101")


class Key(NamedTuple):
    n: int
    d: int
    p: int
    q: int

    @property
    def bytes(self):
        return (self.n.bit_length() + 7) // 8


def _small_primes(limit):
    sieve = bytearray([1]) * limit
    for i in range(2, int(limit**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, limit, i)))
    return [i for i in range(3, limit) if sieve[i]]


SMALL_PRIMES = _small_primes(1 << 14)


def is_probable_prime(n, rounds=24):
    """Miller-Rabin to the first prime bases; the candidates are random, not chosen against it."""
    if any(n % p == 0 for p in SMALL_PRIMES):
        return n in SMALL_PRIMES
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in [2, *SMALL_PRIMES[: rounds - 1]]:
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def make_key(bits, draw):
    """draw(name, length) gives bytes. Both primes have their two top bits set, so the modulus has full length."""

    def prime(name):
        length = bits // 16
        start = int.from_bytes(draw(name, length), "big") | 3 << bits // 2 - 2 | 1
        while gcd(start - 1, EXPONENT) != 1 or not is_probable_prime(start):
            start += 2
        assert start.bit_length() == bits // 2
        return start

    p, q = sorted((prime("p"), prime("q")), reverse=True)
    assert p - q > 1 << bits // 2 - 100
    return complete(p, q)


def complete(p, q):
    return Key(p * q, pow(EXPONENT, -1, lcm(p - 1, q - 1)), p, q)


def _der(tag, content):
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _der_integer(value):
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encode_pkcs8(key):
    numbers = [0, key.n, EXPONENT, key.d, key.p, key.q]
    numbers += [key.d % (key.p - 1), key.d % (key.q - 1), pow(key.q, -1, key.p)]
    inner = _der(0x30, b"".join(map(_der_integer, numbers)))
    return _der(0x30, _der_integer(0) + _der(0x30, OID_RSA + b"\x05\x00") + _der(4, inner))


def _der_read(data, tag):
    assert data[0] == tag
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[start : start + length], data[start + length :]


def parse_pkcs8(encoded):
    body, rest = _der_read(encoded, 0x30)
    assert not rest
    _, body = _der_read(body, 2)
    algorithm, body = _der_read(body, 0x30)
    assert algorithm == OID_RSA + b"\x05\x00"
    inner, rest = _der_read(_der_read(body, 4)[0], 0x30)
    assert not rest
    numbers = []
    while inner:
        content, inner = _der_read(inner, 2)
        numbers.append(int.from_bytes(content, "big"))
    key = Key(numbers[1], numbers[3], numbers[4], numbers[5])
    assert numbers[0] == 0 and numbers[2] == EXPONENT and key.n == key.p * key.q
    assert EXPONENT * key.d % lcm(key.p - 1, key.q - 1) == 1
    assert is_probable_prime(key.p) and is_probable_prime(key.q)
    return key


def _mgf1(seed, length):
    blocks = range(-(-length // 32))
    return b"".join(sha256(seed + i.to_bytes(4, "big")).digest() for i in blocks)[:length]


def oaep_seal(n, label, message, seed):
    size = (n.bit_length() + 7) // 8
    data = sha256(label).digest() + bytes(size - 66 - len(message)) + b"\x01" + message
    masked = xor(data, _mgf1(seed, len(data)))
    block = b"\x00" + xor(seed, _mgf1(masked, 32)) + masked
    return pow(int.from_bytes(block, "big"), EXPONENT, n).to_bytes(size, "big")


def oaep_open(key, label, ciphertext):
    block = pow(int.from_bytes(ciphertext, "big"), key.d, key.n).to_bytes(key.bytes, "big")
    seed = xor(block[1:33], _mgf1(block[33:], 32))
    data = xor(block[33:], _mgf1(seed, len(block) - 33))
    filler, mark, message = data[32:].partition(b"\x01")
    assert block[0] == 0 and data[:32] == sha256(label).digest() and mark and not any(filler)
    return message
