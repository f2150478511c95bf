"""Format v1, written from the description: what follows from a delivery's content, its people and what was drawn.

Every function returns one object of the vectors file whole. `draw(name, length)` gives the random bytes
of that name: new ones when a file is made, the recorded ones when a file is checked."""

import hmac
from hashlib import sha256
from unicodedata import normalize

from aes import cbc_mac, ctr, encrypt_block, gcm_open, gcm_seal, xor
from argon2id import argon2id
from blake3 import blake3
from curve25519 import ed25519_public, ed25519_sign, ed25519_verify, x25519, x25519_public
from mlkem768 import xwing_decapsulate, xwing_encapsulate, xwing_public
from rsa import encode_pkcs8, oaep_open, oaep_seal, parse_pkcs8
from text import base64url, bech32m

KIB, MIB = 1024, 1024 * 1024
NONCE0 = bytes(12)
NO_FINGERPRINT = bytes(32)
NOTE_INDEX = 2**64 - 1
DAY_MS = 86_400_000
HOST_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")


def u8(n):
    return n.to_bytes(1, "big")


def u16(n):
    return n.to_bytes(2, "big")


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


def label(name):
    return f"kh/v1/{name}".encode("ascii").ljust(16, b"\0")


def hashed(*parts):
    return sha256(b"".join(parts)).digest()


def mac(key, *parts):
    return hmac.digest(key, b"".join(parts), "sha256")


def hkdf(ikm, salt, info, length):
    key, out, block = mac(salt, ikm), b"", b""
    while len(out) < length:
        block = mac(key, block, info, u8(len(out) // 32 + 1))
        out += block
    return out[:length]


# --- MEGA's file: grid, MACs, key ---------------------------------------------------------------


def cells(length):
    """(offset, length) of each cell of the grid: 128K more each time up to 1 MiB, the last one cut."""
    offset, step = 0, 0
    while offset < length:
        step = min(step + 128 * KIB, MIB)
        yield offset, min(step, length - offset)
        offset += step


def chunk_macs_of(key, nonce, plaintext):
    return [cbc_mac(key, nonce + nonce, plaintext[o : o + n]) for o, n in cells(len(plaintext))]


def meta_mac(key, macs):
    state = bytes(16)
    for chunk_mac in macs:
        state = encrypt_block(key, xor(state, chunk_mac))
    return xor(state[0:4], state[4:8]) + xor(state[8:12], state[12:16])


def pattern(first, size):
    """Byte i of the pattern is 7i + 13·⌊i/256⌋ + 29·⌊i/65536⌋ mod 256."""
    start, end = first // 256, (first + size) // 256 + 1
    steps = bytes(7 * i & 255 for i in range(256)) * 2
    rows = []
    for row in range(start, end):
        # Multiples of 7 reach every value, so each row is the first one turned.
        turn = (13 * row + 29 * (row // 256)) * pow(7, -1, 256) & 255
        rows.append(steps[turn : turn + 256])
    return b"".join(rows)[first - 256 * start :][:size]


# --- Trees and padding --------------------------------------------------------------------------


def node(left, right):
    return hashed(label("node"), left, right)


def _split(count):
    return 1 << (count - 1).bit_length() - 1


def tree(leaves):
    if not leaves:
        return hashed(label("empty"))
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node(tree(leaves[:k]), tree(leaves[k:]))


def tree_path(leaves, index):
    """RFC 6962's audit path, from the leaf up."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return tree_path(leaves[:k], index) + [tree(leaves[k:])]
    return tree_path(leaves[k:], index - k) + [tree(leaves[:k])]


def padme(x):
    e = x.bit_length() - 1
    step = 1 << e - e.bit_length()
    return -(-x // step) * step


def part_leaves(body):
    leaves = []
    for index, (offset, length) in enumerate(cells(len(body))):
        leaves.append(blake3(label("leaf") + u64(index) + u64(length) + body[offset : offset + length]))
    return leaves


# --- People -------------------------------------------------------------------------------------


class Person:
    def __init__(self, fields):
        self.rsa = parse_pkcs8(bytes.fromhex(fields["rsa_pkcs8"]))
        self.auth_seed = bytes.fromhex(fields["x25519_seed"])
        self.xwing_seed = bytes.fromhex(fields["xwing_seed"]) if fields["xwing_seed"] else None
        self.sign_seed = bytes.fromhex(fields["ed25519_seed"]) if fields["ed25519_seed"] else None
        self.auth_key = x25519_public(self.auth_seed)
        self.xwing_key = xwing_public(self.xwing_seed) if self.xwing_seed else None
        self.sign_key = ed25519_public(self.sign_seed) if self.sign_seed else None
        flags = (1 if self.xwing_key else 0) | (2 if self.sign_key else 0)
        modulus = self.rsa.n.to_bytes(self.rsa.bytes, "big")
        assert len(modulus) in (384, 512) and modulus[0] & 0x80
        self.bundle = b"KNHB" + u8(1) + u8(flags) + u16(len(modulus)) + modulus + self.auth_key
        self.bundle += (self.xwing_key or b"") + (self.sign_key or b"")
        self.fp = hashed(label("bundle"), self.bundle)
        self.inbox_id = self.fp[:20]

    def vectors(self):
        return {
            "rsa_pkcs8": encode_pkcs8(self.rsa).hex(),
            "x25519_seed": self.auth_seed.hex(),
            "xwing_seed": self.xwing_seed.hex() if self.xwing_seed else None,
            "ed25519_seed": self.sign_seed.hex() if self.sign_seed else None,
            "bundle": self.bundle.hex(),
            "fp": self.fp.hex(),
            "address": bech32m("knot", self.inbox_id),
        }


# --- Paths --------------------------------------------------------------------------------------


def paths_accepted(entries):
    """entries: (type, path bytes) pairs. Whether a manifest may hold these paths together."""
    files, folders, seen = set(), set(), set()
    for kind, path in entries:
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            return False
        components = path.split(b"/")
        if len(path) > 1024 or len(components) > 64 or b"\0" in path or path in seen:
            return False
        if any(c in (b"", b".", b"..") or len(c) > 255 for c in components):
            return False
        seen.add(path)
        (files if kind == "file" else folders).add(path)
        folders.update(b"/".join(components[:i]) for i in range(1, len(components)))
    return not files & folders


# --- One delivery -------------------------------------------------------------------------------


def _content(entry):
    if entry["type"] == "dir":
        return b""
    if "content" in entry:
        return bytes.fromhex(entry["content"])
    return pattern(entry["pattern_first"], entry["size"])


def _entry_vectors(entry, index, body_off, draw):
    """Returns the entry's object and its ciphertext."""
    path, content, is_file = entry["path"].encode("utf-8"), _content(entry), entry["type"] == "file"
    key = draw(f"entry{index}/k", 16) if is_file else bytes(16)
    nonce = draw(f"entry{index}/n", 8) if is_file else bytes(8)
    macs = chunk_macs_of(key, nonce, content)
    m = meta_mac(key, macs) if macs else bytes(8)
    ciphertext = ctr(key, nonce, content)
    encoded = b"".join(
        (
            u8(1 if is_file else 2),
            u8(1 if entry["executable"] else 0),
            u16(len(path)) + path,
            u64(len(content)),
            u64(entry["mtime_ms"]),
            u64(body_off),
            key + nonce + m,
            u32(len(macs)) + b"".join(macs),
            u16(0),
        )
    )
    vectors = {
        "type": entry["type"],
        "path": entry["path"],
        "path_bytes": path.hex(),
        "size": len(content),
        "mtime_ms": entry["mtime_ms"],
        "executable": entry["executable"],
    }
    if "content" in entry:
        vectors["content"] = content.hex()
    elif is_file:
        vectors["pattern_first"] = entry["pattern_first"]
        vectors["content_sha256"] = hashed(content).hex()
    vectors["body_off"] = body_off
    vectors["ciphertext_sha256"] = hashed(ciphertext).hex()
    vectors["chunk_macs"] = [chunk_mac.hex() for chunk_mac in macs]
    vectors["m"] = m.hex()
    if is_file:
        vectors["mega_key"] = base64url(xor(key, nonce + m) + nonce + m)
    vectors["entry"] = encoded.hex()
    return vectors, encoded, ciphertext


def _payload(plan, mode, sender, ds):
    """The 512 bytes without tag or signature, and how many of them are used."""
    host, reply_inbox = plan["reply_host"].encode("ascii"), bytes.fromhex(plan["reply_inbox"])
    thread_prev = bytes.fromhex(plan["thread_prev"])
    assert len(host) <= 255 and HOST_LETTERS.issuperset(host) and (any(reply_inbox) or not host)
    assert plan["thread_seq"] > 1 or not any(thread_prev)
    assert (mode == 0) == (sender is None) and (mode < 2 or sender.sign_key)
    sender_fp = sender.fp if sender else NO_FINGERPRINT
    sender_key = (sender.auth_key if mode == 1 else sender.sign_key) if sender else bytes(32)
    used = b"".join(
        (
            u8(1) + u8(mode) + u16(0) + ds,
            u64(plan["created_ms"]) + u64(plan["thread_seq"]) + thread_prev,
            sender_fp + sender_key + bytes(64),
            reply_inbox + u8(len(host)) + host,
        )
    )
    return used.ljust(512, b"\0"), len(used)


def _authenticate(mode, sender, recipient, fp_r, com, h_hdr, payload):
    """The tag or signature in its 64 bytes, and what the vectors show on the way to it."""
    payload_hash = hashed(payload)
    if mode == 1:
        dh = x25519(sender.auth_seed, recipient.auth_key)
        assert dh == x25519(recipient.auth_seed, sender.auth_key)
        tag_key = hkdf(dh, com, label("auth-dh") + sender.fp + fp_r, 32)
        tag = mac(tag_key, h_hdr, payload_hash).ljust(64, b"\0")
        return tag, payload_hash, {"dh": dh.hex(), "tag_key": tag_key.hex()}
    if mode == 2:
        message = label("auth-sig") + fp_r + com + h_hdr + payload_hash
        signature = ed25519_sign(sender.sign_seed, message)
        assert ed25519_verify(sender.sign_key, message, signature)
        return signature, payload_hash, {"message": message.hex()}
    return bytes(64), payload_hash, {}


def _seal_payload(plan, mode, sender, recipient, fp_r, ds, com, h_hdr):
    payload, used = _payload(plan, mode, sender, ds)
    proof, payload_hash, shown = _authenticate(mode, sender, recipient, fp_r, com, h_hdr, payload)
    payload = payload[:148] + proof + payload[212:]
    return payload, {"payload": payload[:used].hex(), "payload_hash": payload_hash.hex(), **shown}


def _envelope_vectors(plan, to, people, ds, h_hdr, draw):
    recipient = people[to]
    suite = 2 if recipient.xwing_key else 1
    sender = people[plan["sender"]] if plan["sender"] else None
    r, oaep_seed = draw(f"{to}/r", 32), draw(f"{to}/oaep_seed", 32)
    ct_rsa = oaep_seal(recipient.rsa.n, label("wrap"), r, oaep_seed)
    ct_xw, ss_xw = b"", None
    ikm = u16(len(r)) + r
    if suite == 2:
        ct_xw, ss_xw = xwing_encapsulate(recipient.xwing_key, draw(f"{to}/xwing_eseed", 64))
        ikm += u16(len(ss_xw)) + ss_xw
    info = label("wrap") + u8(suite) + recipient.fp + h_hdr + hashed(ct_rsa) + hashed(ct_xw)
    okm = hkdf(ikm, label("wrap"), info, 64)
    kek, com = okm[:32], okm[32:]
    payload, shown = _seal_payload(plan, plan["mode"], sender, recipient, recipient.fp, ds, com, h_hdr)
    above = b"KNHE" + u8(1) + u8(suite) + u16(0) + h_hdr + ct_rsa + ct_xw + com
    envelope = above + gcm_seal(kek, NONCE0, above, payload)
    # The other direction, from the private keys alone.
    assert oaep_open(recipient.rsa, label("wrap"), ct_rsa) == r
    assert suite == 1 or xwing_decapsulate(recipient.xwing_seed, ct_xw) == ss_xw
    assert gcm_open(kek, NONCE0, above, envelope[-528:]) == payload
    return {
        "to": to,
        "suite": suite,
        "ct_rsa": ct_rsa.hex(),
        "ct_xw": ct_xw.hex() if suite == 2 else None,
        "ss_xw": ss_xw.hex() if suite == 2 else None,
        "ikm": ikm.hex(),
        "info": info.hex(),
        "kek": kek.hex(),
        "com": com.hex(),
        **shown,
        "envelope_sha256": hashed(envelope).hex(),
        "envelope": envelope.hex(),
    }


def _link_inbox(link_id):
    return hashed(label("link"), link_id)[:20]


def _link_vectors(plan, link, index, people, ds, h_hdr, draw):
    link_id = draw(f"link{index}/link_id", 16)
    secret, salt = draw(f"link{index}/secret", 32), draw(f"link{index}/salt", 16)
    sender = people[link["sender"]] if link["sender"] else None
    assert link["mode"] in (0, 2)
    ikm, argon2 = u16(len(secret)) + secret, None
    if link["password"]:
        password = normalize("NFC", link["password"]).encode("utf-8")
        argon2 = argon2id(password, salt, memory_kib=64 * KIB, passes=3, lanes=1, length=32)
        ikm += u16(len(argon2)) + argon2
    flags = u8(1 if argon2 else 0)
    info = label("link") + flags + h_hdr
    okm = hkdf(ikm, label("wrap"), info, 64)
    kek, com = okm[:32], okm[32:]
    payload, shown = _seal_payload(plan, link["mode"], sender, None, NO_FINGERPRINT, ds, com, h_hdr)
    above = b"KNHL" + u8(1) + flags + u16(0) + salt + h_hdr + com
    access = hkdf(secret, link_id, label("link") + b"access", 32)
    return {
        "mode": link["mode"],
        "sender": link["sender"],
        "password": link["password"],
        "argon2": argon2.hex() if argon2 else None,
        "ikm": ikm.hex(),
        "info": info.hex(),
        "kek": kek.hex(),
        "com": com.hex(),
        **shown,
        "envelope": (above + gcm_seal(kek, NONCE0, above, payload)).hex(),
        "access": access.hex(),
        "access_sha256": hashed(access).hex(),
        "stamp_inbox": _link_inbox(link_id).hex(),
        "fragment": "v1." + base64url(secret),
    }


def delivery_vectors(plan, people, draw):
    drawn = {}

    def recording(name, length):
        value = draw(name, length)
        assert len(value) == length
        drawn[name] = value.hex()
        return value

    ds, delivery_id = recording("ds", 32), recording("delivery_id", 16)
    entries, encoded_entries, body, body_off = [], [], b"", 0
    for index, entry in enumerate(plan["entries"]):
        vectors, encoded, ciphertext = _entry_vectors(entry, index, body_off, recording)
        entries.append(vectors)
        encoded_entries.append(encoded)
        body += ciphertext
        body_off += len(ciphertext)
    assert paths_accepted([(e["type"], bytes.fromhex(e["path_bytes"])) for e in entries])

    keys = {
        word: hkdf(ds, delivery_id, label("ds") + word.encode("ascii"), length)
        for word, length in (("commit", 32), ("manifest", 32), ("open", 32), ("pad", 24))
    }
    content_len = len(body)
    body_len = max(16 * KIB, padme(max(content_len, 2)))
    body += ctr(keys["pad"][:16], keys["pad"][16:], bytes(body_len - content_len))
    leaves = part_leaves(body)
    leaf_tree = tree(leaves)
    body_root = hashed(label("root"), u64(body_len), u64(len(leaves)), leaf_tree)

    oleaves = []
    for index, encoded in enumerate(encoded_entries):
        r = mac(keys["open"], u64(index))
        oleaves.append(hashed(label("oleaf"), u64(index), r, hashed(encoded)))
        entries[index] |= {"r": r.hex(), "oleaf": oleaves[-1].hex()}
    note = plan["note"].encode("utf-8")
    assert len(note) <= 16 * KIB
    r_note = mac(keys["open"], u64(NOTE_INDEX))
    nleaf = hashed(label("oleaf"), u64(NOTE_INDEX), r_note, hashed(note))
    open_root = hashed(label("oroot"), u64(len(entries)), nleaf, tree(oleaves))

    used = b"KNHM" + u8(1) + bytes(3) + u64(content_len) + u32(len(entries)) + u32(len(note)) + note
    used += b"".join(u32(len(e)) + e for e in encoded_entries)
    plain = used.ljust(max(4096, padme(len(used))), b"\0")
    manifest = gcm_seal(keys["manifest"], NONCE0, label("manif") + delivery_id + body_root + open_root, plain)
    header = b"".join(
        (
            b"KNHH" + u8(1) + u8(1) + u16(0) + delivery_id,
            u64(body_len) + u32(len(leaves)) + u32(len(manifest)),
            body_root + hashed(manifest) + open_root + keys["commit"],
            u64(plan["not_after_ms"]) + bytes(8),
        )
    )
    assert len(header) == 184
    h_hdr = hashed(label("header"), header)
    envelopes = [_envelope_vectors(plan, e["to"], people, ds, h_hdr, recording) for e in plan["envelopes"]]
    links = [
        _link_vectors(plan, link, index, people, ds, h_hdr, recording)
        for index, link in enumerate(plan["links"])
    ]
    return {
        "name": plan["name"],
        "mode": plan["mode"],
        "sender": plan["sender"],
        "created_ms": plan["created_ms"],
        "not_after_ms": plan["not_after_ms"],
        "thread_seq": plan["thread_seq"],
        "thread_prev": plan["thread_prev"],
        "reply_inbox": plan["reply_inbox"],
        "reply_host": plan["reply_host"],
        "note": plan["note"],
        "random": drawn,
        "entries": entries,
        "K_commit": keys["commit"].hex(),
        "K_manifest": keys["manifest"].hex(),
        "K_open": keys["open"].hex(),
        "K_pad": keys["pad"].hex(),
        "content_len": content_len,
        "body_len": body_len,
        "body_sha256": hashed(body).hex(),
        "leaves": [leaf.hex() for leaf in leaves],
        "leaf_tree": leaf_tree.hex(),
        "body_root": body_root.hex(),
        "r_note": r_note.hex(),
        "nleaf": nleaf.hex(),
        "oleaf_tree": tree(oleaves).hex(),
        "open_root": open_root.hex(),
        "manifest_plain_sha256": hashed(plain).hex(),
        "manifest_plain_used": used.hex(),
        "manifest_plain_len": len(plain),
        "manifest_len": len(manifest),
        "manifest_sha256": hashed(manifest).hex(),
        "header": header.hex(),
        "H_hdr": h_hdr.hex(),
        "envelopes": envelopes,
        "links": links,
    }


# --- What the relay hands out, and reports ------------------------------------------------------


def record_vectors(plan, deliveries, people, draw):
    """Records for the first envelope of the delivery plan["of"], and a stamp for a link of "links"."""
    drawn = {}

    def recording(name, length):
        drawn[name] = draw(name, length).hex()
        return bytes.fromhex(drawn[name])

    by_name = {delivery["name"]: delivery for delivery in deliveries}
    delivery, linked = by_name[plan["of"]], by_name["links"]
    src_nonce, k_src = recording("src_nonce", 12), recording("K_src", 32)
    lineage, k_frank = recording("lineage", 16), recording("K_frank", 32)
    receipt_key = recording("receipt_key", 32)

    times = u64(plan["accepted_ms"]) + u64(plan["expires_ms"])
    head_1, envelope = bytes.fromhex(plan["head_0"]), delivery["envelopes"][0]
    inbox_id = people[envelope["to"]].inbox_id
    h_hdr, h_env = bytes.fromhex(delivery["H_hdr"]), bytes.fromhex(envelope["envelope_sha256"])
    head_1 = hashed(label("chain"), head_1, u64(plan["seq"]), h_hdr, h_env, times)
    epoch = plan["accepted_ms"] // DAY_MS
    record36 = u8(plan["lane"]) + epoch.to_bytes(3, "big") + lineage + bytes(16)

    def stamp_of(inbox, seq, header_hash, envelope_hash, head):
        above = b"KNHS" + u8(1) + u8(plan["kid"]) + u16(0) + times + inbox + u64(seq)
        above += header_hash + envelope_hash + head
        assert len(above) == 148
        above += src_nonce + gcm_seal(k_src, src_nonce, above, record36)
        return above + mac(k_frank, label("stamp"), above)

    def signed(name, data):
        return data + ed25519_sign(receipt_key, label(name) + data)

    kid = u8(1) + u8(plan["kid"]) + u16(0)
    stamp = stamp_of(inbox_id, plan["seq"], h_hdr, h_env, head_1)
    receipt = signed("receipt", b"KNHR" + kid + inbox_id + h_hdr + h_env + times)
    head_fields = u64(plan["as_of_ms"]) + u64(plan["seq"]) + head_1 + u64(plan["floor_seq"])
    head_record = signed("head", b"KNHI" + kid + inbox_id + head_fields)
    assert (len(stamp), len(receipt), len(head_record)) == (244, 172, 148)

    link = linked["links"][1]
    link_h_env = hashed(bytes.fromhex(link["envelope"]))
    link_stamp = stamp_of(
        bytes.fromhex(link["stamp_inbox"]), 0, bytes.fromhex(linked["H_hdr"]), link_h_env, bytes(32)
    )

    def report(kind, rest):
        above = b"KNHP" + u8(1) + u8(kind) + u16(plan["reason"]) + stamp
        return (above + bytes.fromhex(delivery["header"]) + rest).hex()

    reported, entries = 3, delivery["entries"]
    entry = bytes.fromhex(entries[reported]["entry"])
    path = tree_path([bytes.fromhex(e["oleaf"]) for e in entries], reported)
    note = delivery["note"].encode("utf-8")
    return {
        **{name: plan[name] for name in RECORD_INPUTS},
        "head_0": plan["head_0"],
        "head_1": head_1.hex(),
        "stamp": stamp.hex(),
        "stamp_record36": record36.hex(),
        "receipt": receipt.hex(),
        "head_record": head_record.hex(),
        "report_whole": report(1, bytes.fromhex(delivery["random"]["ds"])),
        "report_entry_3": report(
            2,
            u64(reported)
            + u64(len(entries))
            + bytes.fromhex(delivery["nleaf"])
            + bytes.fromhex(entries[reported]["r"])
            + u32(len(entry))
            + entry
            + u8(len(path))
            + b"".join(path),
        ),
        "report_note": report(
            3,
            u64(len(entries))
            + bytes.fromhex(delivery["r_note"])
            + u32(len(note))
            + note
            + bytes.fromhex(delivery["oleaf_tree"]),
        ),
        "link_stamp": link_stamp.hex(),
        "receipt_public_key": ed25519_public(receipt_key).hex(),
        "random": drawn,
    }


RECORD_INPUTS = ("of", "kid", "accepted_ms", "expires_ms", "seq", "lane", "reason", "as_of_ms", "floor_seq")
