"""What names and describes a data set: its id, the card in its folder, and how to cite it.

All of it is a function of the manifest: no clock and no path of this machine enter, so that equal
sets have equal ids and cards. Nothing reads a card back.
"""

import hashlib
from pathlib import PurePath
from typing import Any

from mmgen import __version__
from mmgen.config import GeneratorConfig, parse_config, to_toml
from mmgen.errors import InputError
from mmgen.presets import PRESETS
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, canonical_json

CARD_NAME = "README.md"
_NO_SET_OF_OURS = "under the licence of their source"
_BATCH_SIZE = 32

# An entry of a bibliography: kind, key, fields in LaTeX.
_Entry = tuple[str, str, dict[str, str]]

_SOFTWARE: _Entry = (
    "misc",
    "moving-mnist",
    {
        "author": "{The moving-mnist authors}",
        "title": "moving-mnist: Moving {MNIST} of exactly the difficulty you choose, and the "
        "{LSTM} autoencoder trained on it",
        "note": "Software",
    },
)
_PAPER: _Entry = (
    "inproceedings",
    "srivastava2015",
    {
        "author": "Srivastava, Nitish and Mansimov, Elman and Salakhutdinov, Ruslan",
        "title": "Unsupervised Learning of Video Representations using {LSTMs}",
        "booktitle": "Proceedings of the 32nd International Conference on Machine Learning",
        "year": "2015",
        "url": "https://arxiv.org/abs/1502.04681",
    },
)


def _preprint(key: str, author: str, title: str, year: int, number: str) -> _Entry:
    url = f"https://arxiv.org/abs/{number}"
    return "misc", key, {"author": author, "title": title, "year": str(year), "url": url}


# glyph set -> (licence, source)
_GLYPH_SOURCES: dict[str, tuple[str, _Entry]] = {
    "mnist": (
        "by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, under "
        "[CC BY-SA 3.0](https://creativecommons.org/licenses/by-sa/3.0/)",
        (
            "article",
            "lecun1998",
            {
                "author": r"LeCun, Yann and Bottou, L{\'e}on and Bengio, Yoshua and Haffner, "
                "Patrick",
                "title": "Gradient-based learning applied to document recognition",
                "journal": "Proceedings of the IEEE",
                "year": "1998",
                "volume": "86",
                "number": "11",
                "pages": "2278--2324",
            },
        ),
    ),
    "fashion": (
        _NO_SET_OF_OURS,
        _preprint(
            "xiao2017",
            "Xiao, Han and Rasul, Kashif and Vollgraf, Roland",
            "{Fashion-MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
            2017,
            "1708.07747",
        ),
    ),
    "kmnist": (
        _NO_SET_OF_OURS,
        _preprint(
            "clanuwat2018",
            "Clanuwat, Tarin and Bober-Irizar, Mikel and Kitamoto, Asanobu and Lamb, Alex and "
            "Yamamoto, Kazuaki and Ha, David",
            "Deep Learning for Classical {Japanese} Literature",
            2018,
            "1812.01718",
        ),
    ),
    "emnist-letters": (
        _NO_SET_OF_OURS,
        _preprint(
            "cohen2017",
            r"Cohen, Gregory and Afshar, Saeed and Tapson, Jonathan and van Schaik, Andr{\'e}",
            "{EMNIST}: an extension of {MNIST} to handwritten letters",
            2017,
            "1702.05373",
        ),
    ),
    "qmnist": (
        _NO_SET_OF_OURS,
        _preprint(
            "yadav2019",
            r"Yadav, Chhavi and Bottou, L{\'e}on",
            "Cold Case: The Lost {MNIST} Digits",
            2019,
            "1905.10498",
        ),
    ),
}


def stored_config(manifest: Manifest) -> GeneratorConfig:
    """Read the config of a set that has one; fields it lacks, of an older version, are defaults.

    raises  InputError where it was imported, and for fields or values unknown to this version
    """
    if manifest.config is None:
        raise InputError("was imported; there is no config to render it from")
    try:
        return parse_config(manifest.config)
    except InputError as error:
        raise InputError(
            f"was made by mmgen {manifest.version} from a config that this version, {__version__}, "
            f"does not know ({error}); update mmgen"
        ) from error


def dataset_id(manifest: Manifest) -> str:
    """Name the sequences of a data set, however they are cut into shards: mm-0123456789abcdef.

    Of the config only what differs from its default enters: a later version, which has more fields,
    names an old set as before. An imported set is named by its shards.
    raises  InputError for a config that this version does not know
    """
    named: dict[str, Any] = {
        "format": schema.FORMAT,
        "seed": manifest.seed,
        "counts": {name: split.count for name, split in manifest.splits.items()},
        "glyphs_sha256": str(manifest.glyphs.get("sha256")),
        "config": None,
    }
    if manifest.config is None:
        named["shards"] = {
            name: [shard.sha256 for shard in split.shards]
            for name, split in manifest.splits.items()
        }
    else:
        config = stored_config(manifest)
        named |= {"config": _changed_fields(config), "rendering": config.rendering}
    return f"mm-{_digest(named)}"


def bibtex(manifest: Manifest) -> str:
    """Cite a data set: itself, this software, the paper, and the source of its glyphs.

    raises  InputError for a config that this version does not know
    """
    name = dataset_id(manifest)
    facts = [f"{_counted(manifest)} sequences"]
    sources = [_SOFTWARE, _PAPER]
    if manifest.config is None:
        facts.append("imported")
    else:
        config = stored_config(manifest)
        facts.insert(0, f"seed {manifest.seed}")
        facts.append(f"config SHA-256 {_digest(_changed_fields(config))}")
        facts.append(f"rendering version {config.rendering}")
        sources.append(_glyphs_entry(_glyphs_name(config)))
    facts.append(f"mmgen {_latex(manifest.version)}")
    title = f"Moving {{MNIST}} data set {name}"
    itself: _Entry = "misc", name, {"key": name, "title": title, "note": "; ".join(facts)}
    return "\n".join(_entry_text(*entry) for entry in (itself, *sources))


def _glyphs_entry(name: str) -> _Entry:
    unnamed: _Entry = "misc", "glyphs", {"key": "glyphs", "title": f"Glyphs {{{_latex(name)}}}"}
    return _GLYPH_SOURCES.get(name, ("", unnamed))[1]


def data_card(manifest: Manifest, *, masks: bool = False) -> str:
    """Describe a data set in Markdown: what is in it, how to load, to make again and to cite it.

    masks  whether it was made with instance masks, which no manifest says
    """
    parts = [
        f"# Moving MNIST data set {dataset_id(manifest)}\n",
        _opening(manifest),
        _table(manifest),
        "## Config\n",
        *_config_part(manifest),
        "## Glyphs\n",
        _glyphs_part(manifest),
        "## Loading\n",
        _loading_part(manifest, masks),
        "## Making it again\n",
        _regrowing_part(manifest, masks),
        "## Citing\n",
        f"As `mmgen info OUT --bibtex` prints it:\n\n{_fenced('bibtex', bibtex(manifest))}",
    ]
    return "\n".join(parts)


def _opening(manifest: Manifest) -> str:
    origin = "written by" if manifest.config is None else f"drawn with seed {manifest.seed} by"
    return (
        f"Sequences of moving glyphs, {origin} mmgen {manifest.version} (the package "
        f"`moving-mnist`), in data set format {schema.FORMAT}. Equal ids mean equal sequences. "
        "`OUT` below stands for this folder.\n"
    )


def _table(manifest: Manifest) -> str:
    rows: dict[str, tuple[int, ...]] = {
        name: (split.count, len(split.shards), sum(shard.bytes for shard in split.shards))
        for name, split in manifest.splits.items()
    }
    rows["all"] = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    lines = ["| split | sequences | shards | bytes |", "| --- | --: | --: | --: |"]
    lines += [f"| {name} | {' | '.join(map(str, numbers))} |" for name, numbers in rows.items()]
    return "\n".join(lines) + "\n"


def _config_part(manifest: Manifest) -> list[str]:
    if manifest.config is None:
        return ["None: the frames were imported.\n"]
    config = stored_config(manifest)
    equal = [name for name, (preset, _) in PRESETS.items() if preset == config]
    parts = []
    if equal:
        others = f" (equal: {', '.join(f'`{name}`' for name in equal[1:])})" if equal[1:] else ""
        parts.append(f"The preset `{equal[0]}`{others}: {PRESETS[equal[0]][1]}.\n")
    shown = config.model_copy(update={"glyphs": _glyphs_name(config)})
    fields = dict(zip(GeneratorConfig.model_fields, to_toml(shown).splitlines(True), strict=True))
    changed = config.model_dump(exclude_defaults=True)
    if changed:
        parts.append("What differs from the defaults:\n")
        parts.append(_fenced("toml", "".join(fields[name] for name in changed)))
    else:
        parts.append("Every field has its default.\n")
    parts.append("All of it, to be edited and given to `mmgen generate --config FILE.toml`:\n")
    parts.append(_fenced("toml", "".join(fields.values())))
    return parts


def _glyphs_part(manifest: Manifest) -> str:
    if manifest.config is None:
        return "Unknown: the frames were imported.\n"
    name = _glyphs_name(stored_config(manifest))
    licence, _ = _GLYPH_SOURCES.get(name, (_NO_SET_OF_OURS, None))
    lines = [
        f"The set `{name}`, {licence}. SHA-256 of all bitmaps, then all labels: "
        f"`{manifest.glyphs.get('sha256')}`."
    ]
    pools = [(split, manifest.glyphs[split]) for split in schema.SPLITS if split in manifest.glyphs]
    if pools:
        lines += ["", "| split | its glyphs, by index |", "| --- | --- |"]
        lines += [f"| {split} | {first}..{last - 1} |" for split, (first, last) in pools]
    return "\n".join(lines) + "\n"


def _loading_part(manifest: Manifest, masks: bool) -> str:
    split, entry = next(iter(manifest.splits.items()))
    mask = "sequence.mask  # uint8 (T, H, W): 0, or the number of the digit seen + 1\n"
    plugin = "" if manifest.codec in ("gzip", "none") else "import hdf5plugin\n"
    position = "sequence.position  # float32 (T, K, 2): top-left (y, x) of each digit in px\n"
    truth = ("" if manifest.config is None else position) + (mask if masks else "")
    with_mmgen = f"""import mmgen

sequence = mmgen.open("OUT")["{split}"][0]
sequence.frames  # uint8 (T, H, W), or (T, H, W, 3) in colour
{truth}"""
    with_h5py = f"""import h5py
{plugin}
with h5py.File("OUT/{split}/{entry.shards[0].name}") as shard:
    frames = shard["frames"][0]
"""
    shuffled = f"""import trainer

stream = trainer.SequenceStream("OUT", batch_size={min(_BATCH_SIZE, entry.count)}, split="{split}")
for batch in stream:  # endless; no sequence twice in an epoch
    frames = batch.frames  # uint8 tensor (B, T, H, W), or (B, T, H, W, 3) in colour
    break
"""
    return (
        f"{_fenced('python', with_mmgen)}\nWith h5py alone:\n\n{_fenced('python', with_h5py)}\n"
        f"As shuffled batches for PyTorch:\n\n{_fenced('python', shuffled)}"
    )


def _regrowing_part(manifest: Manifest, masks: bool) -> str:
    if manifest.config is None:
        return "It was imported: there is no config to make it from again.\n"
    command = f"mmgen generate OUT --from manifest.json{' --masks' if masks else ''}\n"
    where = ""
    if _glyphs_name(stored_config(manifest)) not in _GLYPH_SOURCES:
        where = " `--glyphs PATH` says where the glyphs lie on your machine."
    return (
        f"{_fenced('sh', command)}\n"
        "makes equal sequences elsewhere, or says what differs there and refuses; "
        f"`mmgen verify OUT --regrow all` compares these with what the config draws.{where}\n"
    )


def _changed_fields(config: GeneratorConfig) -> dict[str, Any]:
    """Return what says how sequences look; glyphs and rendering are named by hash and version."""
    return config.model_dump(exclude_defaults=True, exclude={"glyphs", "rendering"})


def _digest(data: Any) -> str:
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]


def _counted(manifest: Manifest) -> str:
    return ", ".join(f"{split.count} {name}" for name, split in manifest.splits.items())


def _glyphs_name(config: GeneratorConfig) -> str:
    """Name the glyphs in one line: a set by its name, a path without what only its owner knows."""
    if config.glyphs in _GLYPH_SOURCES:
        return config.glyphs
    return "PATH/" + " ".join(PurePath(config.glyphs).name.replace("`", "'").split())


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}```\n"


def _entry_text(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}}}\n"


def _latex(text: str) -> str:
    """Write any text so that LaTeX prints it."""
    named = {"\\": r"\textbackslash ", "~": r"\textasciitilde ", "^": r"\textasciicircum "}
    named |= {"{": r"\textbraceleft ", "}": r"\textbraceright "}  # \{ would unbalance an entry
    return "".join(named.get(c, f"\\{c}" if c in "_%&#$" else c) for c in text)
