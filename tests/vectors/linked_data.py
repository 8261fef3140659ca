"""Writes a JSON-LD document from standard input as N-Quads: an independent processor's opinion.

    python3 linked_data.py CONTEXT_FILE < document.json

A document without a context gets that of the file, as the Link header of a packet says. Exits 77
where there is no pyld.
"""

import json
import sys

try:
    from pyld import jsonld
except ImportError:
    sys.exit(77)

NAME = "urn:driftgate:context:v1"

with open(sys.argv[1], encoding="utf-8") as file:
    context = json.load(file)


def load(url, options=None):
    if url != NAME:
        raise ValueError(f"nothing else is fetched: {url}")
    return {"contextUrl": None, "documentUrl": url, "document": context}


document = json.load(sys.stdin)
options = {"format": "application/n-quads", "documentLoader": load}
if "@context" not in document:
    options["expandContext"] = context
sys.stdout.write(jsonld.to_rdf(document, options))
