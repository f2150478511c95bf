"""Makes a vectors file, or checks one: every value is computed again from the inputs and the draws it records."""

import argparse
import json
import sys
from hashlib import shake_256

import content
from delivery import Person, delivery_vectors, paths_accepted, record_vectors
from known_answers import check_primitives
from rsa import encode_pkcs8, make_key


def say(text):
    print(text, file=sys.stderr, flush=True)


def drawing(seed, *where):
    """Draws that depend on the seed and on the name alone, so that new vectors leave the others as they are."""

    def draw(name, length):
        return shake_256(b"\0".join([seed, *(w.encode() for w in where), name.encode()])).digest(length)

    return draw


def recorded(random):
    return lambda name, _length: bytes.fromhex(random[name])


def make_person(name, wanted, seed):
    draw = drawing(seed, "people", name)
    key = make_key(wanted["rsa"], draw)
    return Person(
        {
            "rsa_pkcs8": encode_pkcs8(key).hex(),
            "x25519_seed": draw("x25519", 32).hex(),
            "xwing_seed": draw("xwing", 32).hex() if wanted["xwing"] else None,
            "ed25519_seed": draw("ed25519", 32).hex() if wanted["ed25519"] else None,
        }
    )


def path_vectors(rows):
    computed = []
    for row in rows:
        entries = [(kind, bytes.fromhex(path)) for kind, path in row["entries"]]
        computed.append({"accepted": paths_accepted(entries), "why": row["why"], "entries": row["entries"]})
    return computed


def make(seed):
    people = {}
    for name, wanted in content.PEOPLE.items():
        say(f"person {name}")
        people[name] = make_person(name, wanted, seed)
    deliveries = []
    for plan in content.deliveries(people):
        say(f"delivery {plan['name']}")
        deliveries.append(delivery_vectors(plan, people, drawing(seed, "deliveries", plan["name"])))
    paths = path_vectors(content.paths())
    assert [row["accepted"] for row in paths] == [row["accepted"] for row in content.paths()]
    draw = drawing(seed, "records")
    plan = {**content.RECORDS, "head_0": draw("head_0", 32).hex()}
    return {
        "about": content.ABOUT,
        "seed": seed.hex(),
        "people": {name: person.vectors() for name, person in people.items()},
        "deliveries": deliveries,
        "records": record_vectors(plan, deliveries, people, draw),
        "paths": paths,
    }


def differences(where, given, computed):
    if isinstance(given, dict) and isinstance(computed, dict):
        for key in sorted({*given, *computed}):
            if key not in given or key not in computed:
                yield f"{where}.{key}: only {'given' if key in given else 'computed'}"
            else:
                yield from differences(f"{where}.{key}", given[key], computed[key])
    elif isinstance(given, list) and isinstance(computed, list) and len(given) == len(computed):
        for index, pair in enumerate(zip(given, computed)):
            yield from differences(f"{where}[{index}]", *pair)
    elif given != computed or type(given) is not type(computed):
        yield f"{where}: given {str(given)[:80]}, computed {str(computed)[:80]}"


def count_values(value):
    if isinstance(value, (dict, list)):
        return sum(map(count_values, value.values() if isinstance(value, dict) else value))
    return 1


def check(given):
    """Prints each difference and returns how many there are. `about` and `seed` are for people."""
    found = []

    def compare(where, given_part, computed_part):
        new = list(differences(where, given_part, computed_part))
        found.extend(new)
        say(f"{where}: {count_values(given_part)} values, {len(new)} differ")

    people = {name: Person(fields) for name, fields in given["people"].items()}
    compare("people", given["people"], {name: person.vectors() for name, person in people.items()})
    deliveries = []
    for delivery in given["deliveries"]:
        deliveries.append(delivery_vectors(delivery, people, recorded(delivery["random"])))
        compare(f"deliveries.{delivery['name']}", delivery, deliveries[-1])
    records = given["records"]
    compare("records", records, record_vectors(records, deliveries, people, recorded(records["random"])))
    compare("paths", given["paths"], path_vectors(given["paths"]))
    for line in found:
        print(line)
    return len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="FILE", help="make the vectors and write them to FILE")
    what.add_argument("--check", metavar="FILE", help="compute what FILE holds and compare")
    parser.add_argument("--seed", default=content.SEED, help="hex; what --write draws from")
    options = parser.parse_args()
    check_primitives()
    if options.check:
        with open(options.check, encoding="utf-8") as file:
            return 1 if check(json.load(file)) else 0
    text = json.dumps(make(bytes.fromhex(options.seed)), indent=1, ensure_ascii=False) + "\n"
    with open(options.write, "w", encoding="utf-8") as file:
        file.write(text)
    say(f"{options.write}: {len(text.encode())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
