#!/usr/bin/env python3
"""Makes the vectors that tests/protocol/vectors.rs checks, independently of the Rust code.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install rfc8785 cryptography
    /tmp/v/bin/python tests/vectors/make.py

They were made once. They are not regenerated to make a test pass: a difference is a change of the
wire, and that needs a new token context and a new protocol version.

Canonical bytes: the PyPI package `rfc8785`. HMAC and SHA-256: Python's own. Ed25519: PyCA.
The number and structure samples are those published with RFC 8785 (appendix B; sections 3.2.2 and
3.2.3; the test data of its reference implementations).
"""
import base64
import binascii
import copy
import hashlib
import hmac
import json
import pathlib
import struct

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).parent
SECRET = bytes(range(32))
SECRET_64 = bytes(range(100, 164))
SEED = bytes(range(200, 232))
SOURCE_SEQ = 1_795_000_000_000_000

NUMBERS = [
    ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"), ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"), ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"), ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"), ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"), ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"), ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"), ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"), ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"), ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"), ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]

STRUCTURES = {
    "arrays": '[\n  56,\n  {\n    "d": true,\n    "10": null,\n    "1": [ ]\n  }\n]',
    "french": '{\n  "peach": "This sorting order",\n  "péché": "is wrong according to French",\n'
              '  "pêche": "but canonicalization MUST",\n  "sin":   "ingnore locale"\n}\n',
    "structures": '{\n  "1": {"f": {"f": "hi","F": 5} ,"\\n": 56.0},\n  "10": { },\n'
                  '  "": "empty",\n  "a": { },\n  "111": [ { } ],\n  "A": { }\n}',
    "unicode": '{\n  "Unnormalized Unicode":"A\\u030a"\n}\n',
    "values": '{\n  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, '
              '0.000000000000000000000000001],\n  "string": "\\u20ac$\\u000F\\u000aA\'\\u0042'
              '\\u0022\\u005c\\\\\\"\\/",\n  "literals": [null, true, false]\n}',
    "weird": '{\n  "\\u20ac": "Euro Sign",\n  "\\r": "Carriage Return",\n'
             '  "\\u000a": "Newline",\n  "1": "One",\n  "\\u0080": "Control\\u007f",\n'
             '  "\\ud83d\\ude02": "Smiley",\n  "\\u00f6": "Latin Small Letter O With Diaeresis",\n'
             '  "\\ufb33": "Hebrew Letter Dalet With Dagesh",\n'
             '  "</script>": "Browser Challenge"\n}\n',
}


def canonical(value):
    """rfc8785 prints whole floats and ints alike, as RFC 8785 asks."""
    return rfc8785.dumps(value)


def crc16(data):
    return binascii.crc_hqx(data, 0)


def nkey(prefix, raw):
    data = bytes(prefix) + raw
    data += struct.pack("<H", crc16(data))
    return base64.b32encode(data).rstrip(b"=").decode()


USER = 20 << 3
PRIVATE = Ed25519PrivateKey.from_private_bytes(SEED)
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
SEED_NKEY = nkey([(18 << 3) | (USER >> 5), (USER & 31) << 3], SEED)
PUBLIC_NKEY = nkey([USER], PUBLIC)


def token(alg, key_id, seq, checksum):
    message = f"driftgate-token-v1\n{key_id}\n{seq}\n{checksum}".encode()
    if alg == "ed25519":
        tag = base64.urlsafe_b64encode(PRIVATE.sign(message)).rstrip(b"=").decode()
    else:
        secret = {"k1": SECRET, "long": SECRET_64}.get(key_id, b"x" * 32)
        tag = hmac.new(secret, message, hashlib.sha256).hexdigest()
    return f"{alg}:{key_id}:{seq}:{tag}"


def golden():
    sdi, sv, pd, scr = 0.2, 0.1, 0.1, 0.8
    return {
        "header": {
            "protocol_version": "1.0", "source_runtime_id": "planner",
            "target_runtime_id": "critic", "timestamp": "2026-11-23T01:02:03.450Z",
        },
        "payload": {
            "attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.9224137931034483,
                                "phase": "stable", "scr": scr},
            "drift_metrics": {"sdi": sdi, "sv": sv, "pd": pd, "di": (sdi + sv + pd) / (3 * scr)},
            "memory_snapshot": {"summary_hash": "sha256:" + hashlib.sha256(b"memory").hexdigest(),
                                "retention_index": 0.82},
            "safety_flags": {"aegida_status": "nominal", "phase_lock": False,
                             "recenter_active": False},
        },
    }


def sign(packet, alg="hmac-sha256", key_id="k1", seq=SOURCE_SEQ):
    covered = {"header": packet["header"], "payload": packet["payload"]}
    checksum = "sha256:" + hashlib.sha256(canonical(covered)).hexdigest()
    signed = copy.deepcopy(packet)
    signed["signature"] = {"checksum": checksum, "integrity_token": token(alg, key_id, seq, checksum)}
    return signed


def at(document, pointer):
    *path, leaf = pointer.strip("/").split("/")
    for step in path:
        document = document[step]
    return document, leaf


LEAVES = [
    # pointer, another lawful value (breaks the checksum), an unlawful value (signed well)
    ("/header/protocol_version", "1.1", "one"),
    ("/header/source_runtime_id", "planned", "plan.ner"),
    ("/header/target_runtime_id", "critics", ""),
    ("/header/timestamp", "2026-11-23T01:02:03.451Z", "2026-11-23 01:02"),
    ("/payload/attractor_state/id", "a-2", "a\u0007"),
    ("/payload/attractor_state/type", "generative", "Symbolic"),
    ("/payload/attractor_state/stability", 0.9224137931034482, 1.0000001),
    ("/payload/attractor_state/phase", "forming", "x" * 33),
    ("/payload/attractor_state/scr", 0.8000000000000002, 0),
    ("/payload/drift_metrics/sdi", 0.20000000000000004, -0.1),
    ("/payload/drift_metrics/sv", 0.11, 1.5),
    ("/payload/drift_metrics/pd", 0.11, 2),
    ("/payload/drift_metrics/di", 0.1666, -0.5),
    ("/payload/memory_snapshot/summary_hash", "sha256:" + "0" * 64, "sha256:" + "A" * 64),
    ("/payload/memory_snapshot/retention_index", 0.83, 82),
    ("/payload/safety_flags/aegida_status", "locked", ""),
    ("/payload/safety_flags/phase_lock", True, 0),
    ("/payload/safety_flags/recenter_active", True, "false"),
]


def wire(packet):
    return canonical(packet).decode()


def cases():
    yield "golden hmac", "ok", "", wire(sign(golden()))
    yield "golden ed25519", "ok", "", wire(sign(golden(), "ed25519", "planner"))
    yield "a secret of 64 bytes", "ok", "", wire(sign(golden(), key_id="long"))
    yield "the greatest seq", "ok", "", wire(sign(golden(), seq=2**64 - 1))
    minimal = golden()
    del minimal["payload"]["memory_snapshot"]
    yield "minimal exchange", "ok", "", wire(sign(minimal))
    newer = golden()
    newer["header"]["protocol_version"] = "1.7"
    newer["header"]["new"] = 1
    newer["payload"]["drift_metrics"]["extra"] = {"\U0001f602": [1, None], "\ufb33": "x"}
    yield "a later minor with unknown fields", "ok", "", wire(sign(newer))
    upper = golden()
    upper["payload"]["attractor_state"]["phase"] = "STABLE"
    yield "a phase in upper case", "ok", "", wire(sign(upper))
    major = golden()
    major["header"] = {"protocol_version": "2.0"}
    yield "another major", "incompatible", "/header/protocol_version", wire(sign(major))

    for pointer, lawful, unlawful in LEAVES:
        tampered = sign(golden())
        parent, leaf = at(tampered, pointer)
        parent[leaf] = lawful
        yield f"{pointer} tampered", "forged", "/signature/checksum", wire(tampered)
        for name, value in [("unlawful", unlawful), ("null", None), ("an array", [])]:
            broken = golden()
            parent, leaf = at(broken, pointer)
            parent[leaf] = value
            yield f"{pointer} {name}", "malformed", pointer, wire(sign(broken))
        missing = golden()
        parent, leaf = at(missing, pointer)
        del parent[leaf]
        yield f"{pointer} missing", "malformed", pointer, wire(sign(missing))
    for pointer in ["/header/extra", "/payload/extra", "/payload/attractor_state/extra",
                    "/payload/drift_metrics/extra", "/payload/memory_snapshot/extra",
                    "/payload/safety_flags/extra"]:
        extra = golden()
        parent, leaf = at(extra, pointer)
        parent[leaf] = 1
        yield f"{pointer} unknown in 1.0", "malformed", pointer, wire(sign(extra))
    for pointer in ["/extra", "/signature/extra"]:
        extra = sign(golden())
        parent, leaf = at(extra, pointer)
        parent[leaf] = 1
        yield f"{pointer} unknown in 1.0", "malformed", pointer, wire(extra)
    for pointer in ["/signature/checksum", "/signature/integrity_token"]:
        missing = sign(golden())
        parent, leaf = at(missing, pointer)
        del parent[leaf]
        yield f"{pointer} missing", "malformed", pointer, wire(missing)
    yield from token_cases()
    yield from spelling_cases()


def token_cases():
    def with_token(change):
        packet = sign(golden())
        signature = packet["signature"]
        signature["integrity_token"] = change(signature["integrity_token"].split(":"),
                                              signature["checksum"])
        return wire(packet)

    forged, malformed, pointer = "forged", "malformed", "/signature/integrity_token"
    changes = [
        ("another seq", forged, lambda parts, _: ":".join([*parts[:2], "7", parts[3]])),
        ("an unknown key", forged, lambda _, checksum: token("hmac-sha256", "k2", 1, checksum)),
        ("another key's tag", forged, lambda parts, checksum:
            token("hmac-sha256", "long", parts[2], checksum).replace(":long:", ":k1:")),
        ("another algorithm's name", forged, lambda parts, _: ":".join(["ed25519", *parts[1:]])),
        ("an unknown algorithm", forged, lambda parts, _: ":".join(["none", *parts[1:]])),
        ("no tag", forged, lambda parts, _: ":".join([*parts[:3], ""])),
        ("an upper-case tag", forged, lambda parts, _: ":".join([*parts[:3], parts[3].upper()])),
        ("a bare hash", malformed, lambda _, checksum: checksum),
        ("a leading zero", malformed, lambda p, _: ":".join([p[0], p[1], "0" + p[2], p[3]])),
        ("a signed seq", malformed, lambda p, _: ":".join([p[0], p[1], "+1", p[3]])),
        ("a seq beyond u64", malformed, lambda p, _: ":".join([p[0], p[1], str(2**64), p[3]])),
        ("a fifth part", malformed, lambda parts, _: ":".join([*parts, ""])),
        ("a key id with a dot", malformed, lambda p, _: ":".join([p[0], "k.1", p[2], p[3]])),
    ]
    for name, fault, change in changes:
        yield f"token with {name}", fault, pointer, with_token(change)
    checksum = sign(golden())
    checksum["signature"]["checksum"] = "sha256:" + "0" * 64
    yield "checksum of something else", forged, "/signature/checksum", wire(checksum)
    signature = sign(golden(), "ed25519", "planner")
    tag = signature["signature"]["integrity_token"]
    signature["signature"]["integrity_token"] = tag + "=="
    yield "ed25519 tag with padding", forged, pointer, wire(signature)


def spelling_cases():
    text = wire(sign(golden()))
    for name, other in [
        ("a space", text.replace('"header":', '"header": ')),
        ("a trailing newline", text + "\n"),
        ("another key order", json.dumps(json.loads(text)["header"] and {
            key: json.loads(text)[key] for key in ["payload", "header", "signature"]},
            separators=(",", ":"))),
        ("a number with a trailing zero", text.replace('"pd":0.1,', '"pd":0.10,')),
        ("a needless escape", text.replace('"planner"', '"\\u0070lanner"')),
    ]:
        assert other != text
        yield f"spelt with {name}", "malformed", "/", other
    yield "a duplicate key", "malformed", "/payload/drift_metrics/di", \
        text.replace('"pd":0.1,', '"di":0,"pd":0.1,')
    yield "trailing bytes", "malformed", "/", text + "{}"
    yield "no object", "malformed", "/", "[]"
    yield "nothing", "malformed", "/", ""
    yield "cut short", "malformed", "/", text[:-1]


def main():
    for bits, expected in NUMBERS:
        number = struct.unpack(">d", bytes.fromhex(bits))[0]
        assert float(expected) == number, (bits, expected)
        if abs(number) < 2**53 or number != int(number):
            assert canonical(number).decode() == expected, (bits, expected, canonical(number))
    structures = [
        {"name": name, "input": text,
         "canonical_hex": canonical(json.loads(text, parse_int=float)).hex()}
        for name, text in STRUCTURES.items()
    ]
    write("canonical.json", {
        "numbers": [{"bits": bits, "canonical": text} for bits, text in NUMBERS],
        "structures": structures,
    })
    write("packets.json", {
        "keys": {
            "k1": {"secret_hex": SECRET.hex()},
            "long": {"secret_hex": SECRET_64.hex()},
            "planner": {"nkey_seed": SEED_NKEY, "nkey_public": PUBLIC_NKEY},
        },
        "seq": str(SOURCE_SEQ),
        "cases": [
            {"name": name, "expect": expect, "field": field, "wire": text}
            for name, expect, field, text in cases()
        ],
    })


def write(name, document):
    text = json.dumps(document, indent=1, ensure_ascii=True)
    (HERE / name).write_text(text + "\n")


main()
