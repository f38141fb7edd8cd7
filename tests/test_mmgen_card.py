"""A set's id, card and citation: functions of the manifest that hold elsewhere and later."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import mmgen
from mmgen.card import bibtex, data_card, dataset_id
from mmgen.config import GeneratorConfig
from mmgen.pipeline import generate_dataset
from mmgen.presets import PRESETS, load_config
from mmgen.shard.manifest import Manifest, ShardEntry, SplitEntry

ROOT = Path(__file__).parent.parent


def manifest_of(config=None, **changes):
    """Describe a set of 30 and 4 sequences that nobody has written."""
    splits = {
        "train": SplitEntry(30, (shard("train", 0, 0, 20), shard("train", 1, 20, 10))),
        "test": SplitEntry(4, (shard("test", 0, 0, 4),)),
    }
    glyphs = {"name": "mnist", "sha256": "ab" * 32, "train": [0, 55000], "test": [60000, 70000]}
    config = (config or GeneratorConfig()).model_dump()
    facts = {"version": "0.1.0", "config": config, "seed": 5, "glyphs": glyphs, "codec": "gzip"}
    return Manifest(**facts | {"shard_size": 20, "splits": splits} | changes)


def shard(split, number, first, count, sha256="cd" * 32):
    return ShardEntry(f"{split}-{number:06d}.h5", first, count, 1000 + number, sha256)


def imported(sha256="cd" * 32):
    splits = {"test": SplitEntry(4, (shard("test", 0, 0, 4, sha256),))}
    return replace(manifest_of(), config=None, splits=splits, glyphs={})


# The id.


def test_the_id_never_changes():
    """A golden: papers cite it."""
    assert dataset_id(manifest_of()) == "mm-a6a05a57b09450ce"
    assert dataset_id(manifest_of(load_config("svg-stochastic"))) == "mm-f5283e29f25d8161"
    assert dataset_id(imported()) == "mm-0aa2ca42d978fa06"


def test_the_id_names_what_is_drawn_and_not_how_it_is_kept():
    here = manifest_of()
    one_shard = {"train": SplitEntry(30, (shard("train", 0, 0, 30, "ef" * 32),))}
    elsewhere = here.config | {"glyphs": "/home/me/mnist"}
    for same in (
        replace(here, shard_size=99, codec="zstd", version="9", splits=here.splits | one_shard),
        replace(here, config=elsewhere, glyphs=here.glyphs | {"name": "letters"}),
        replace(here, config=dict(reversed(here.config.items()))),
    ):
        assert dataset_id(same) == dataset_id(here)
    fewer = SplitEntry(20, here.splits["train"].shards[:1])
    others = [
        manifest_of(load_config(assignments=["speed=3"])),
        replace(here, seed=6),
        replace(here, splits=here.splits | {"train": fewer}),
        replace(here, glyphs=here.glyphs | {"sha256": "ac" * 32}),
        imported(),
        imported("ef" * 32),
    ]
    assert len({dataset_id(manifest) for manifest in (here, *others)}) == 1 + len(others)


def test_a_config_that_lacks_later_fields_keeps_its_id():
    full = manifest_of(load_config(assignments=["digits=3"]))
    old = {name: full.config[name] for name in ("canvas", "frames", "digits", "speed", "glyphs")}
    assert dataset_id(replace(full, config=old)) == dataset_id(full)


def test_workers_and_shards_on_disk_do_not_enter(small_dataset, small_config, tmp_path):
    counts = {"train": 20, "val": 3, "test": 9}
    again = generate_dataset(tmp_path / "a", small_config, counts, seed=5, shard_size=3, workers=2)
    assert dataset_id(again) == dataset_id(mmgen.open(small_dataset).manifest)


def test_info_tells_id_and_citation_and_describes_a_set_of_a_later_version(
    run_mmgen, copied_dataset, edit_manifest
):
    name = dataset_id(mmgen.open(copied_dataset).manifest)
    assert re.fullmatch("mm-[0-9a-f]{16}", name)
    assert run_mmgen("info", copied_dataset).stdout.splitlines()[1] == f"  id {name}"
    assert json.loads(run_mmgen("info", copied_dataset, "--json").stdout)["id"] == name
    cited = run_mmgen("info", copied_dataset, "--bibtex").stdout
    assert cited == bibtex(mmgen.open(copied_dataset).manifest)
    both = run_mmgen("info", copied_dataset, "--bibtex", "--json", code=2).stderr
    assert both.endswith("Error: --json and --bibtex exclude each other; leave one out\n")

    edit_manifest(copied_dataset, lambda data: data["config"].update(fog=1))
    version = mmgen.__version__
    problem = f"was made by mmgen {version} from a config that this version, {version}, does not "
    problem += "know (field 'fog' does not exist"
    told = run_mmgen("info", copied_dataset).stdout
    assert f"  id unknown: {problem}" in told
    assert "  fog = 1\n" in told
    assert json.loads(run_mmgen("info", copied_dataset, "--json").stdout)["id"] is None
    assert run_mmgen("info", copied_dataset, "--bibtex", code=2).stderr.startswith(
        f"Error: {problem}"
    )


# The card.


def blocks(card, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def test_the_card_in_the_folder_is_that_of_the_manifest(small_dataset):
    card = (small_dataset / "README.md").read_text()
    manifest = mmgen.open(small_dataset).manifest
    assert card == data_card(manifest)
    assert card.startswith(f"# Moving MNIST data set {dataset_id(manifest)}\n")
    for name, split in manifest.splits.items():
        size = sum(path.stat().st_size for path in (small_dataset / name).iterdir())
        assert f"| {name} | {split.count} | {len(split.shards)} | {size} |" in card
    assert "| all | 32 | 6 | " in card
    assert "`OUT` below" in card
    assert str(small_dataset.parent) not in card


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "config",
    [*PRESETS, GeneratorConfig(glyphs="/home/me/a`b_{c} d.npz", digits=3), None],
)
def test_every_card_is_valid_markdown_and_toml(config, codec):
    config = PRESETS[config][0] if isinstance(config, str) else config
    manifest = replace(manifest_of(config) if config else imported(), codec=codec)
    card = data_card(manifest)
    assert card == data_card(Manifest.from_json(manifest.to_json(), "here"))
    fences = re.findall("^```.*$", card, re.MULTILINE)
    assert all(fence != "```" for fence in fences[::2])
    assert set(fences[1::2]) == {"```"}
    text = re.sub(r"^```\w+\n.*?^```\n", "", card, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall("^#+ .*$", text, re.MULTILINE)
    assert [heading.count("#") for heading in headings] == [1, 2, 2, 2, 2, 2]
    for paragraph in text.split("\n\n"):
        assert paragraph.count("`") % 2 == 0, paragraph
        rows = [line for line in paragraph.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert all(line == line.rstrip() for line in card.splitlines())
    for block in blocks(card, "python"):
        compile(block, "card", "exec")
    assert ("import hdf5plugin" in card) == (codec == "zstd")
    assert blocks(card, "bibtex") == [bibtex(manifest)]
    tables = [tomllib.loads(block) for block in blocks(card, "toml")]
    if config is None:
        assert not tables
        assert "--from" not in card
        return
    *changed, everything = tables
    shown = config.model_dump() | {"glyphs": everything["glyphs"]}
    assert everything == shown
    for fields in changed:
        assert GeneratorConfig(**fields) == GeneratorConfig(**shown)
    assert bool(changed) == (config != GeneratorConfig())


def test_a_card_says_which_preset_it_is_and_where_its_glyphs_are_from():
    card = data_card(manifest_of())
    assert f"\nThe preset `srivastava` (equal: `openstl`): {PRESETS['srivastava'][1]}.\n" in card
    assert "Every field has its default.\n" in card
    assert "The set `mnist`, by Yann LeCun" in card
    assert "[CC BY-SA 3.0]" in card
    assert "| train | 0..54999 |\n| test | 60000..69999 |\n" in card
    assert "--glyphs" not in card
    card = data_card(manifest_of(load_config(assignments=["glyphs=kmnist", "digits=3"])))
    assert "The preset" not in card
    assert "The set `kmnist`, under the licence of their source." in card
    card = data_card(manifest_of(GeneratorConfig(glyphs="/home/me/mnist")))
    assert "The set `PATH/mnist`, under the licence of their source." in card
    assert "/home" not in card
    assert "CC BY-SA" not in card
    assert "`--glyphs PATH` says where the glyphs lie on your machine" in card


def test_a_set_with_masks_says_so():
    card = data_card(manifest_of(), masks=True)
    assert blocks(card, "sh") == ["mmgen generate OUT --from manifest.json --masks\n"]
    assert "\nsequence.mask  # uint8 (T, H, W): " in card
    assert "mask" not in data_card(manifest_of())


def test_what_the_card_says_of_loading_works(small_dataset, monkeypatch):
    (small_dataset.parent / "OUT").symlink_to(small_dataset)
    monkeypatch.chdir(small_dataset.parent)
    first = mmgen.open(small_dataset)["train"][0].frames
    snippets = blocks(data_card(mmgen.open(small_dataset).manifest), "python")
    assert len(snippets) == 3
    for snippet in snippets:
        names = {}
        exec(snippet, names)
        if "sequence" in names:
            assert names["sequence"].frames.tobytes() == first.tobytes()
        elif "stream" in names:
            assert names["frames"].shape == (20, *first.shape)
        else:
            assert names["frames"].tobytes() == first.tobytes()


# The citation.


def entries(text):
    """Read BibTeX, key -> fields: values in balanced braces, one a line, as we write them."""
    found = {}
    for kind, key, body in re.findall(r"@(\w+)\{([^,\s]+),\n(.*?)\n\}\n", text, re.DOTALL):
        assert key not in found
        found[key] = {"": kind}
        for line in body.splitlines():
            name, value = re.fullmatch(r"  (\w+) = \{(.*)\},", line).groups()
            depths = [value[:end].count("{") - value[:end].count("}") for end in range(len(value))]
            assert min([*depths, 0]) == 0
            assert value.count("{") == value.count("}")
            found[key][name] = value
    assert len(found) == text.count("@")
    return found


def test_a_citation_names_the_set_the_software_the_paper_and_the_glyphs():
    manifest = manifest_of(load_config("tfds"))
    found = entries(bibtex(manifest))
    name = dataset_id(manifest)
    assert list(found) == [name, "moving-mnist", "srivastava2015", "lecun1998"]
    note = r"seed 5; 30 train, 4 test sequences; config SHA-256 [0-9a-f]{16}; rendering version 1; "
    assert re.fullmatch(note + r"mmgen 0\.1\.0", found[name]["note"])
    assert found["srivastava2015"][""] == "inproceedings"
    assert "yadav2019" in entries(bibtex(manifest_of(GeneratorConfig(glyphs="qmnist"))))


@pytest.mark.parametrize("name", ["letters_{a}\\b", "a}b}{", "a{{b", "a%b~c^d#e$f&g", "two\nlines"])
def test_any_name_of_glyphs_can_be_cited(name):
    manifest = manifest_of(GeneratorConfig(glyphs=f"/home/me/{name}"))
    title = entries(bibtex(manifest))["glyphs"]["title"]
    assert "home" not in title
    assert not re.search(r"(?<!\\)[%&#$_]", title)


def test_an_imported_set_claims_no_seed_no_truth_and_no_glyphs():
    cited = entries(bibtex(imported()))
    assert list(cited)[1:] == ["moving-mnist", "srivastava2015"]
    assert cited[dataset_id(imported())]["note"] == "4 test sequences; imported; mmgen 0.1.0"
    card = data_card(imported())
    assert "## Glyphs\n\nUnknown: the frames were imported.\n" in card
    assert not re.search(r"seed|position|None`", card)


def test_the_software_is_cited_as_its_own_file_says():
    cff = (ROOT / "CITATION.cff").read_text()
    cited = bibtex(manifest_of()).replace("{", "").replace("}", "").replace(r"\'e", "é")
    for title in re.findall(r'title: "(.*)"', cff):
        assert title in cited
    for family, given in re.findall(r"family-names: (.*)\n +given-names: (.*)", cff):
        assert f"{family}, {given}" in cited
    for author in re.findall(r'- name: "(.*)"', cff):
        assert author in cited
