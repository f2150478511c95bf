"""What the vectors file is about: who takes part, what is sent, and which paths a manifest may hold."""

from hashlib import sha256

SEED = "6b6e6f74686f6c652f696e646570656e64656e742f31"
LARGEST = 2**53 - 1
NEW_YEAR = 1798761600000  # 2027-01-01T00:00:00Z
NO_INBOX = bytes(20).hex()
NO_DELIVERY = bytes(32).hex()

ABOUT = [
    "Vectors for the delivery format, version 1, in the same form and with the same names of fields as format-vectors.json, whose \"about\" explains them. Made by test/vectors/independent/generate.py, which shares no file and no package with the rest of the project; seed is what it draws from. The private keys are for tests alone.",
    "people: full and sender have every key under RSA-3072, wide the same under RSA-4096; hybrid lacks Ed25519, signing lacks X-Wing, rsaOnly (3072) and wideRsa (4096) lack both.",
    "deliveries: one-byte is the smallest with something in it. empty holds one empty file. tree has folders, sizes on and beside the borders of blocks and of the first cell, and the largest time there is. borders has sizes around the second border, out of step with the body's grid. far goes to three recipients, anonymous but with a thread and a reply address; its body and its large file each reach the cells of 1 MiB. exact-step ends where the padding does, above the floor; over-step is one byte past the floor, to two recipients. note-only has a host of 255 bytes; note-max a note of 16384 bytes. names holds what is strange but allowed. links has no envelope and four links, each combination of mode 0 or 2 with and without a password: the passwords must be brought to NFC and not further, and their spaces stay.",
    "records: for \"tree\" to \"full\". The entry is not the inbox's first, so head_0 is the head before it and not zero, and floor_seq is set; accepted_ms is the last millisecond of a day. link_stamp is for the second link of \"links\".",
]

# Which keys each has beside the X25519 key, which nobody lacks.
PEOPLE = {
    "full": {"rsa": 3072, "xwing": True, "ed25519": True},
    "sender": {"rsa": 3072, "xwing": True, "ed25519": True},
    "wide": {"rsa": 4096, "xwing": True, "ed25519": True},
    "hybrid": {"rsa": 3072, "xwing": True, "ed25519": False},
    "signing": {"rsa": 3072, "xwing": False, "ed25519": True},
    "rsaOnly": {"rsa": 3072, "xwing": False, "ed25519": False},
    "wideRsa": {"rsa": 4096, "xwing": False, "ed25519": False},
}

RECORDS = {
    "of": "tree",
    "kid": 9,
    "accepted_ms": NEW_YEAR - 1,
    "expires_ms": NEW_YEAR + 30 * 86_400_000 - 1,
    "seq": 4660,
    "lane": 2,
    "reason": 5,
    "as_of_ms": NEW_YEAR + 5_000,
    "floor_seq": 4096,
}


def file(path, content, mtime_ms=0, executable=False):
    return {"type": "file", "path": path, "mtime_ms": mtime_ms, "executable": executable, "content": content.hex()}


def patterned(path, first, size, mtime_ms=0, executable=False):
    entry = {"type": "file", "path": path, "mtime_ms": mtime_ms, "executable": executable}
    return {**entry, "pattern_first": first, "size": size}


def folder(path, mtime_ms=0):
    return {"type": "dir", "path": path, "mtime_ms": mtime_ms, "executable": False}


def delivery(name, to, entries, mode=0, sender=None, note="", links=(), **fields):
    return {
        "name": name,
        "mode": mode,
        "sender": sender,
        "created_ms": NEW_YEAR,
        "not_after_ms": 0,
        "thread_seq": 0,
        "thread_prev": NO_DELIVERY,
        "reply_inbox": NO_INBOX,
        "reply_host": "",
        "note": note,
        "entries": entries,
        "envelopes": [{"to": person} for person in to],
        "links": list(links),
        **fields,
    }


def earlier(name):
    return sha256(f"the delivery before {name}".encode()).hexdigest()


def longest_note():
    line = "Ein Brief, der nirgends endet — 終わりのない手紙 — письмо без конца — 🧵\n"
    note = line * (16384 // len(line.encode()))
    return note + "." * (16384 - len(note.encode()))


def longest_host():
    return ".".join((letter * 62)[: 61 if letter == "3" else 62] for letter in "0a_3") + ":8443"


STRANGE_NAMES = [
    # One letter in three forms, one syllable in two, ligature, sharp s, dotted capital i.
    "\u212b", "\u00c5", "A\u030a", "\ud55c", "\u1112\u1161\u11ab", "\ufb01n", "fin", "stra\u00dfe", "STRASSE", "\u0130", "i\u0307",
    # Names with a meaning to Windows, to a shell, to JavaScript, to a URL.
    "COM\u00b9", "LPT9.tar.gz", "CONIN$", "aux", "C:", "\\\\host\\share", "<|>?*\"", "a. .", " ", ". ", ". .",
    "$(id)", "`id`;&", "--", "*", "~root", "__proto__", "constructor/prototype", "%2e%2e%2f", "a?b#c",
    # Invisible, turning and breaking characters; the last code points of planes.
    "\t", "\r\n", "\x7f", "\u0085", "\u2028", "a\u200bb", "\u2066x\u2069", "\u05d0\u05d1.txt", "\uffff", "\U0010ffff",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467", "..a", "a..", "....",
    # "!" sorts before "/", "0" after it: neither lies in the folder "a".
    "a!", "a0/b", "a/b", "a/B",
    # 85 characters, 255 bytes. Then 64 components in 1024 bytes: both limits at once.
    "\u65e5" * 85, "/".join(["fifteen-letters"] * 63 + ["sixteen--letters"]),
]  # fmt: skip


def deliveries(people):
    def inbox(name):
        return people[name].inbox_id.hex()

    return [
        delivery("one-byte", ["hybrid"], [file("x", b"\xff")], created_ms=0),
        delivery("empty", ["wideRsa"], [file("nothing", b"", executable=True)], mode=1, sender="rsaOnly"),
        delivery(
            "tree",
            ["full"],
            [
                folder("Bilder", mtime_ms=NEW_YEAR - 1),
                file("Bilder/leer", b"", mtime_ms=1),
                folder("Bilder/tief/tiefer"),
                patterned("131073.bin", 70_000, 131_073, mtime_ms=LARGEST),
                file("15", bytes(range(15))),
                file("16", bytes(range(16)), executable=True),
                file("17", bytes(17)),
                patterned("131071.bin", 1_000, 131_071, executable=True),
                patterned("日本/131072.bin", 255, 131_072),
                file("日本/語.txt", "木の洞".encode(), mtime_ms=946_684_800_000),
                file("1", b"1", mtime_ms=NEW_YEAR, executable=True),
            ],
            mode=1,
            sender="sender",
            note="Árbol, knothole, 木の洞. 🌳",
            not_after_ms=NEW_YEAR + 86_400_000,
            thread_seq=258,
            thread_prev=earlier("tree"),
            reply_inbox=inbox("sender"),
            reply_host="[2001:db8::7]:8787",
        ),
        delivery(
            "borders",
            ["wide"],
            [
                file("five", b"five\n"),
                patterned("393215", 11, 393_215),
                patterned("393216", 12, 393_216),
                patterned("393217", 13, 393_217),
            ],
            mode=2,
            sender="signing",
            thread_seq=1,
        ),
        delivery(
            "far",
            ["hybrid", "wide", "wideRsa"],
            [file("3", b"abc"), patterned("5767169.bin", 65_536, 5_767_169)],
            note="To three.",
            thread_seq=2,
            thread_prev=earlier("far"),
            reply_inbox=inbox("hybrid"),
            reply_host="hollow-tree.onion:8080",
        ),
        delivery(
            "exact-step",
            ["signing"],
            [patterned("first", 21, 131_073), patterned("second", 22, 270_336 - 131_073)],
            mode=1,
            sender="rsaOnly",
        ),
        delivery("over-step", ["full", "wide"], [patterned("16385", 23, 16_385)], mode=1, sender="sender"),
        delivery(
            "note-only",
            ["full"],
            [],
            mode=2,
            sender="signing",
            note="\ufeffLine one\r\nline two\0line three\u202e",
            not_after_ms=LARGEST,
            reply_inbox=inbox("signing"),
            reply_host=longest_host(),
        ),
        delivery("note-max", ["rsaOnly"], [], note=longest_note()),
        delivery(
            "names",
            ["full"],
            [folder("later/still")]
            + [file(name, str(i).encode()) for i, name in enumerate(STRANGE_NAMES)]
            + [folder("a"), folder("later"), file("later/last", b"last", executable=True)],
            mode=2,
            sender="sender",
        ),
        delivery(
            "links",
            [],
            [file("for/whoever.txt", b"for whoever has the key\n")],
            note="Over there.",
            links=[
                {"mode": 0, "sender": None, "password": None},
                {"mode": 0, "sender": None, "password": "A\u030angstro\u0308m \ufb01n"},
                {"mode": 2, "sender": "signing", "password": None},
                {"mode": 2, "sender": "sender", "password": " \u1112\u1161\u11ab 🌳 "},
            ],
            reply_inbox=inbox("wide"),
            reply_host="relay.example",
        ),
    ]


def paths():
    def row(accepted, why, *entries):
        encoded = [[kind, path.hex() if isinstance(path, bytes) else path.encode().hex()] for kind, path in entries]
        return {"accepted": accepted, "why": why, "entries": encoded}

    def files(*paths):
        return [("file", path) for path in paths]

    one = "file"
    return [
        row(True, "no entry for any folder", *files("a/b/c", "a/b/d", "a/e")),
        row(True, "folder before, between and after what lies in it", (one, "a/b"), ("dir", "a"), (one, "a/c"), ("dir", "a/d")),
        row(True, "folder in a folder, neither with a file", ("dir", "a/b/c")),
        row(True, "names that sort around a slash", *files("a", "a!", "a-b/c", "a0/b", "ab")),
        row(True, "file beside a folder that differs by case", *files("A", "a/b")),
        row(True, "file in NFC, folder in NFD", *files("\u00e9", "e\u0301/b")),
        row(True, "names of JavaScript's prototypes", *files("__proto__", "constructor", "toString/valueOf")),
        row(True, "backslashes and percent signs do not separate", *files("..\\..\\b", "%2e%2e", "%2F")),
        row(True, "dots beside other letters", *files("..a", "a..", ".a", "a.", ".. ", " ..", "...")),
        row(True, "home, drive and share", *files("~/a", "C:/a", "\\\\host\\share/a")),
        row(True, "line ends, C1 controls and DEL", *files("\r\n", "\u0085", "\x7f", "\u2028")),
        row(True, "ends of the ranges of UTF-8", *files("\x01\x7f", "\u0080\u07ff", "\u0800\ud7ff", "\ue000\uffff", "\U00010000\U0010ffff")),
        row(True, "255 bytes in 85 characters", *files("\u65e5" * 85)),
        row(True, "64 levels in 1024 bytes", *files("/".join(["x" * 15] * 63 + ["x" * 16]))),
        row(True, "folder of 64 levels", ("dir", "/".join(["d"] * 64))),
        row(False, "folder with an empty path", ("dir", "")),
        row(False, "a slash alone", *files("/")),
        row(False, "two slashes alone", ("dir", "//")),
        row(False, "file with a slash at its end", *files("a/")),
        row(False, "leading slash on a folder", ("dir", "/a")),
        row(False, ". at the beginning", *files("./a")),
        row(False, ". at the end", ("dir", "a/.")),
        row(False, ".. alone", *files("..")),
        row(False, "a climb of many levels", *files("a/b/../../../c")),
        row(False, "NUL alone", *files("\0")),
        row(False, "NUL at the end", *files("a\0")),
        row(False, "258 bytes in 86 characters", *files("\u65e5" * 86)),
        row(False, "component of 256 bytes at the end", *files("a/" + "x" * 256)),
        row(False, "1025 bytes in 64 levels", *files("/".join(["x" * 15] * 62 + ["x" * 16] * 2))),
        row(False, "folder of 65 levels", ("dir", "/".join(["d"] * 65))),
        row(False, "one path twice, far apart", *files("a", "b", "c", "a")),
        row(False, "one folder twice, its file between", ("dir", "a"), (one, "a/b"), ("dir", "a")),
        row(False, "folder and then file of one path", ("dir", "a"), (one, "a")),
        row(False, "folder in a file", ("dir", "a/b"), (one, "a")),
        row(False, "file in a file, another name sorted between", *files("a", "a!", "a/b")),
        row(False, "file in a file, three levels up", *files("a/b/c/d/e", "x", "a/b")),
        row(False, "file in a file of JavaScript's names", *files("__proto__/a", "__proto__")),
        row(False, "bad path behind a good one", *files("a", "b/../c")),
        row(False, "continuation byte alone", *files(b"a\x80")),
        row(False, "overlong NUL", *files(b"a\xc0\x80")),
        row(False, "overlong dot", *files(b"\xc0\xae")),
        row(False, "overlong in three bytes", *files(b"\xe0\x9f\xbf")),
        row(False, "overlong in four bytes", *files(b"\xf0\x8f\xbf\xbf")),
        row(False, "last surrogate", *files(b"\xed\xbf\xbf")),
        row(False, "pair of surrogates", *files(b"\xed\xa0\xbd\xed\xb8\x80")),
        row(False, "sequence of five bytes", *files(b"\xf8\x88\x80\x80\x80")),
        row(False, "sequence cut by a slash", *files(b"\xe6\x97/a")),
        row(False, "sequence cut after three of four bytes", ("dir", b"\xf0\x9f\x8c")),
        row(False, "byte FE", *files(b"\xfe")),
        row(False, "Latin-1", *files(b"caf\xe9")),
    ]  # fmt: skip
