#!/usr/bin/env python3
"""Writes the image of a static binary as an archive, with its SBOM and provenance beside it.

  archive.py BINARY FOLDER --arch amd64|arm64 --target TRIPLE

No container engine takes part, so that an image can be made where none can be pulled. The archive
is an OCI image layout which also has the manifest.json of `docker save`: `ctr images import`,
`podman load` and `docker load` take it. The same binary gives the same bytes: entries are sorted,
times and owners are zero.
"""
import argparse
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# For NATS over TLS with a public authority; a private one is mounted and named in the configuration.
CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
USER = "65532:65532"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tar(files):
    """An archive of (name, bytes, mode), with the folders that they stand in."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = sorted({str(p) for name, _, _ in files for p in pathlib.PurePath(name).parents} - {"."})
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data, mode in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def packages():
    """What is built in: the packages of Cargo.lock that the program's own dependencies reach."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    development = tomllib.loads((ROOT / "Cargo.toml").read_text()).get("dev-dependencies", {})
    by_name = {}
    for package in lock:
        by_name.setdefault(package["name"], []).append(package)
    reached, waiting = {}, ["driftgate"]
    while waiting:
        name, _, version = waiting.pop().partition(" ")
        for package in by_name[name]:
            key = (package["name"], package["version"])
            if version and version.split()[0] != package["version"] or key in reached:
                continue
            reached[key] = package
            needs = package.get("dependencies", [])
            if name == "driftgate":
                needs = [need for need in needs if need.split()[0] not in development]
            waiting.extend(needs)
    return [package for _, package in sorted(reached.items()) if package["name"] != "driftgate"]


def sbom(version, digest):
    """CycloneDX 1.5. No serial number and no time: the same lock file gives the same bytes."""
    def component(package):
        found = {
            "type": "library",
            "bom-ref": f"pkg:cargo/{package['name']}@{package['version']}",
            "name": package["name"],
            "version": package["version"],
            "purl": f"pkg:cargo/{package['name']}@{package['version']}",
        }
        if "checksum" in package:
            found["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        return found
    program = {
        "type": "application", "name": "driftgate", "version": version, "bom-ref": "driftgate",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": program},
        "components": [component(package) for package in packages()],
    }


def said(*command):
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def provenance(version, digest, image, target):
    """An in-toto statement with SLSA provenance, unsigned: to be signed by whoever publishes."""
    sources = [{"uri": "Cargo.lock", "digest": {"sha256": sha256((ROOT / "Cargo.lock").read_bytes())}}]
    if commit := said("git", "rev-parse", "HEAD"):
        clean = "" if said("git", "status", "--porcelain", "--untracked-files=no") else "yes"
        sources.append({"uri": "git", "digest": {"gitCommit": commit}, "annotations": {"clean": clean == "yes"}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [
            {"name": "driftgate", "digest": {"sha256": digest}},
            {"name": f"driftgate:{version}", "digest": {"sha256": image}},
        ],
        "predicate": {
            "buildDefinition": {
                "buildType": "make image",
                "externalParameters": {"target": target},
                "internalParameters": {"rustc": said("rustc", "--version")},
                "resolvedDependencies": sources,
            },
            "runDetails": {"builder": {"id": "make image"}},
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--arch", required=True, choices=["amd64", "arm64"])
    parser.add_argument("--target", required=True)
    arguments = parser.parse_args()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    binary = arguments.binary.read_bytes()
    files = [("driftgate", binary, 0o755)]
    files += [(f"licenses/{name}", (ROOT / name).read_bytes(), 0o644) for name in ("LICENSE", "NOTICE")]
    if CERTIFICATES.exists():
        files.append((str(CERTIFICATES).lstrip("/"), CERTIFICATES.read_bytes(), 0o644))
    plain = tar(files)
    layer = gzip.compress(plain, mtime=0)
    config = dump({
        "architecture": arguments.arch, "os": "linux",
        "config": {
            "User": USER,
            "ExposedPorts": {"7406/tcp": {}},
            "Entrypoint": ["/driftgate"],
            "Cmd": ["run", "--config", "/etc/driftgate/driftgate.toml"],
            "Labels": {
                "org.opencontainers.image.title": "driftgate",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(plain)]},
    })
    oci = "application/vnd.oci.image."

    def descriptor(kind, data, **more):
        return {"mediaType": oci + kind, "digest": "sha256:" + sha256(data), "size": len(data), **more}
    manifest = dump({
        "schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar+gzip", layer)],
    })
    name = f"docker.io/library/driftgate:{version}"
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": version}
    index = dump({
        "schemaVersion": 2, "mediaType": oci + "index.v1+json",
        "manifests": [descriptor("manifest.v1+json", manifest, annotations=names)],
    })
    blob = lambda data: ("blobs/sha256/" + sha256(data), data, 0o644)
    saved = dump([{"Config": blob(config)[0], "RepoTags": [name], "Layers": [blob(layer)[0]]}])
    archive = tar([
        blob(config), blob(layer), blob(manifest),
        ("index.json", index, 0o644), ("manifest.json", saved, 0o644),
        ("oci-layout", dump({"imageLayoutVersion": "1.0.0"}), 0o644),
    ])
    base = arguments.folder / f"driftgate-{version}-{arguments.arch}"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    digest = sha256(manifest)
    pretty = lambda value: (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
    for ending, data in (
        (".tar", archive),
        (".sbom.cdx.json", pretty(sbom(version, sha256(binary)))),
        (".provenance.json", pretty(provenance(version, sha256(binary), digest, arguments.target))),
    ):
        base.with_name(base.name + ending).write_bytes(data)
    print(f"{base}.tar: sha256:{digest}, {len(archive) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
