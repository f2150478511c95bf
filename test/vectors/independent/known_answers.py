"""Published answers for the primitives, so that a slip in one of them is not taken for a slip in the format."""

from struct import pack

from aes import cbc_mac, ctr, encrypt_block, gcm_open, gcm_seal
from argon2id import argon2id
from blake3 import blake3
from curve25519 import ed25519_public, ed25519_sign, ed25519_verify, x25519
from text import bech32m_values


def expect(what, got, wanted):
    wanted = bytes.fromhex(wanted) if isinstance(wanted, str) and isinstance(got, bytes) else wanted
    assert got == wanted, f"{what}: {got!r}"


def check_primitives():
    h = bytes.fromhex
    plain = h("00112233445566778899aabbccddeeff")
    expect("FIPS 197 C.1", encrypt_block(bytes(range(16)), plain), "69c4e0d86a7b0430d8cdb78070b4c55a")
    expect("FIPS 197 C.3", encrypt_block(bytes(range(32)), plain), "8ea2b7ca516745bfeafc49904b496089")
    expect("GCM case 13", gcm_seal(bytes(32), bytes(12), b"", b""), "530f8afbc74536b9a963b4f1c4cb738b")
    sealed = gcm_seal(
        h("feffe9928665731c6d6a8f9467308308" * 2),
        h("cafebabefacedbaddecaf888"),
        h("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        h(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
    )
    expect("GCM case 16, tag", sealed[-16:], "76fc6ece0f4e1768cddf8853bb2d551b")
    expect(
        "GCM back",
        gcm_open(bytes(32), bytes(12), b"aad", gcm_seal(bytes(32), bytes(12), b"aad", plain)),
        plain,
    )

    expect("BLAKE3, empty", blake3(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    counted = bytes(i % 251 for i in range(1025))
    expect("BLAKE3, 1025", blake3(counted), "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444")

    expect(
        "RFC 7748 §5.2",
        x25519(
            h("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            h("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        ),
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    )
    seed = h("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public, signature = ed25519_public(seed), ed25519_sign(seed, b"\x72")
    expect("RFC 8032 §7.1, key", public, "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    expect(
        "RFC 8032 §7.1, signature",
        signature,
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    )
    expect("Ed25519 verifies", ed25519_verify(public, b"\x72", signature), True)
    expect("Ed25519 refuses", ed25519_verify(public, b"\x73", signature), False)

    tag = argon2id(b"\x01" * 32, b"\x02" * 16, 32, 3, 4, 32, secret=b"\x03" * 8, associated=b"\x04" * 12)
    expect("RFC 9106 §5.3", tag, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")

    values = list(range(31, -1, -1))
    expect("BIP-350", bech32m_values("abcdef", values), "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx")

    # CTR and CBC-MAC against their definitions, block by block.
    key, nonce, data = bytes(range(16)), bytes(range(16, 24)), bytes(range(40))
    stream = b"".join(encrypt_block(key, nonce + pack(">Q", i)) for i in range(3))
    expect("CTR", ctr(key, nonce, data), bytes(a ^ b for a, b in zip(data, stream)))
    state = nonce + nonce
    for i in range(0, 48, 16):
        state = encrypt_block(key, bytes(a ^ b for a, b in zip(state, (data + bytes(8))[i : i + 16])))
    expect("CBC-MAC", cbc_mac(key, nonce + nonce, data), state)
