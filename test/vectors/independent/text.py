"""The two encodings of bytes as text: bech32m (BIP-350) and base64url without padding (RFC 4648)."""

from base64 import urlsafe_b64encode

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3


def _polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> i & 1:
                check ^= generator
    return check


def bech32m_values(prefix, values):
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    rest = _polymod(expanded + values + [0] * 6) ^ BECH32M
    check = [rest >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(CHARSET[v] for v in values + check)


def bech32m(prefix, data):
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return bech32m_values(prefix, [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)])


def base64url(data):
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
