"""What a data set was asked to be, and what draws a finished one again.

A request is written into the folder first and says what the folder is for: an equal request
finishes it, any other is refused. The manifest of a finished set says what draws it again, if this
machine and version can.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Protocol

from mmgen.card import stored_config
from mmgen.config import GeneratorConfig, parse_config
from mmgen.draws import check_seed
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet, is_path, load_glyphs
from mmgen.shard import schema
from mmgen.shard.codecs import find_codec
from mmgen.shard.manifest import MAX_JSON_BYTES, Manifest, canonical_json, read_json_file
from mmgen.shard.places import Place, find_place

_MAX_SEQUENCES = 10**12
_MAX_SHARDS = 10**6
_MAX_SHARD_SIZE = 10**6  # a shard's annotations are held in memory until it is full


class AnyRequest(Protocol):
    """What a folder was made for: equal requests are equal JSON and give equal bytes."""

    def to_json(self) -> str:
        """Write the request in canonical form."""
        ...


@dataclass(frozen=True)
class Request:
    """What a generator was asked for; `counts` is sequences by split."""

    config: GeneratorConfig
    seed: int
    counts: Mapping[str, int]
    shard_size: int
    glyphs_sha256: str
    masks: bool
    codec: str

    @property
    def portable_config(self) -> dict[str, Any]:
        """Every field of the config; of glyphs at a path only their hash says which they are."""
        placeless = {"glyphs": "PATH"} if is_path(self.config.glyphs) else {}
        return self.config.model_dump() | placeless

    def to_json(self) -> str:
        """Write the request in canonical form, the same wherever the glyphs lie."""
        fields = {
            "format": schema.FORMAT,
            "config": self.portable_config,
            "seed": self.seed,
            "counts": dict(self.counts),
            "shard_size": self.shard_size,
            "codec": self.codec,
            "masks": self.masks,
            "glyphs_sha256": self.glyphs_sha256,
        }
        return canonical_json(fields)


def make_request(
    config: GeneratorConfig,
    counts: Mapping[str, int],
    glyphs: GlyphSet,
    *,
    seed: int,
    shard_size: int | None,
    masks: bool,
    codec: str,
) -> Request:
    """Check counts, seed, shard size and codec; InputError names the first that cannot be."""
    size = find_shard_size(shard_size, (config.frames.high, *config.frame_shape))
    check_seed(seed)
    find_codec(codec)
    if unknown := set(counts) - set(schema.SPLITS):
        raise InputError(f"splits {sorted(unknown)} do not exist")
    wanted = {split: counts.get(split, 0) for split in schema.SPLITS}
    for split, count in wanted.items():
        if not 0 <= count <= _MAX_SEQUENCES:
            raise InputError(f"{split}: {count} sequences; allowed are 0..{_MAX_SEQUENCES}")
    if sum(wanted.values()) > size * _MAX_SHARDS:
        raise InputError(f"that makes more than {_MAX_SHARDS} shards; enlarge the shard size")
    if not any(wanted.values()):
        raise InputError("no split has any sequence; ask for at least one")
    return Request(config, seed, wanted, size, glyphs.sha256, masks, codec)


def find_shard_size(asked: int | None, sequence_shape: tuple[int, ...]) -> int:
    """Return how many sequences a shard holds; InputError if what was asked is out of range."""
    size = schema.default_shard_size(sequence_shape) if asked is None else asked
    if not 1 <= size <= _MAX_SHARD_SIZE:
        raise InputError(f"shard size: {size} is out of range, allowed are 1..{_MAX_SHARD_SIZE}")
    return size


def read_manifest(address: str | os.PathLike[str]) -> Manifest:
    """Read a manifest by its name, or by the data set that holds it, here or at an address."""
    place = find_place(address)
    if place.is_remote:
        folder, _, name = os.fspath(address).rstrip("/").rpartition("/")
        is_file = name.endswith(PurePath(schema.MANIFEST_NAME).suffix)
        return read_manifest_in(find_place(folder), name) if is_file else read_manifest_in(place)
    path = place.root / schema.MANIFEST_NAME if place.root.is_dir() else place.root
    return Manifest.from_json(read_json_file(path), str(path))


def read_manifest_in(place: Place, name: str = schema.MANIFEST_NAME) -> Manifest:
    """Read the manifest of a data set."""
    return Manifest.from_json(place.read_text(name, MAX_JSON_BYTES), place.where(name))


def find_origin(
    manifest: Manifest,
    where: str,
    glyphs_at: str | None = None,
    remedy: str = "say with --glyphs where they lie",
) -> tuple[GeneratorConfig, GlyphSet]:
    """Return the config and the glyphs that draw the sequences of a data set again.

    where      names the data set in errors
    glyphs_at  where the glyphs lie here, in place of what the config says
    remedy     what to do, in errors, where its glyphs are not there
    raises     InputError that says what differs here: no config, fields or versions unknown to this
               version, other glyphs or another split of them
    """
    try:
        config = stored_config(manifest)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if glyphs_at is not None:
        config = parse_config(config.model_dump() | {"glyphs": glyphs_at})
    try:
        glyphs = load_glyphs(config.glyphs)
    except InputError as error:
        if glyphs_at is not None or not is_path(config.glyphs):
            raise
        raise InputError(f"{where}: its glyphs are not here ({error}); {remedy}") from error
    if glyphs.sha256 != manifest.glyphs.get("sha256"):
        raise InputError(
            f"{where}: was made from other glyphs (SHA-256 {manifest.glyphs.get('sha256')}, here "
            f"{glyphs.sha256}); {remedy}"
        )
    for split in manifest.splits:
        here = list(glyphs.splits[split])
        if (there := manifest.glyphs.get(split, here)) != here:
            raise InputError(
                f"{where}: {split} was made from the glyphs {there[0]}..{there[1] - 1}, here it "
                f"has {here[0]}..{here[1] - 1}; use the version that made it, {manifest.version}"
            )
    return config, glyphs


def first_difference(text: str, request: AnyRequest) -> str | None:
    """Say where a stored request is another one, None if it is this."""
    try:
        there = json.loads(text)
        wanted = json.loads(request.to_json())
        if there == wanted:
            return None
        for name in wanted:
            if there.get(name) == wanted[name]:
                continue
            if isinstance(wanted[name], dict) and isinstance(there.get(name), dict):
                for field, value in wanted[name].items():
                    if there[name].get(field) != value:
                        return f"{field} is {there[name].get(field)}, asked for is {value}"
            return f"{name} is {there.get(name)}, asked for is {wanted[name]}"
    except (ValueError, AttributeError, RecursionError):
        return f"{schema.REQUEST_NAME} does not parse"
    return "it has further entries"
