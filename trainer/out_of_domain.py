"""The same model on sequences that it was not trained for, as Srivastava et al. 2015 tried theirs.

What differs from the data that a model is scored on is one thing at a time; everything else, and
all that chance decides, stays the same.
"""

from collections.abc import Iterator
from typing import Any

from mmgen import errors
from mmgen.config import GeneratorConfig, parse_config
from mmgen.fields import FloatRange
from trainer.baselines import Redrawn
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.evaluation import evaluate
from trainer.model import VideoAutoencoder
from trainer.source import LiveSource, Source

_KEPT = ("prediction", "reconstruction", "baselines", "skill", "skill_interval")
FASHION = "fashion"


def out_of_domain(
    model: VideoAutoencoder, source: Source, data: DataConfig, num_sequences: int
) -> dict[str, Any]:
    """Score a model on other numbers of digits, other speeds, transposed digits and clothes.

    source   what the model was scored on; where nobody knows how it was drawn (imported data), the
             published rules stand in for it
    returns  what -> `prediction`, `reconstruction`, `baselines`, `skill` as `Scored.as_json` has
             them; None where that cannot be drawn on this canvas, or its glyphs are not here
    """
    origin = Redrawn.of(source, data.context) or _published(model.frame_shape, source.split)
    scored: dict[str, Any] = {}
    for name, other in _others(origin):
        scored[name] = None
        if other is not None:
            result = evaluate(model, other, data, num_sequences).as_json()
            scored[name] = {key: result[key] for key in _KEPT}
    return scored


def _published(frame_shape: tuple[int, ...], split: str) -> Redrawn:
    height, width, *colours = frame_shape
    config = GeneratorConfig(canvas=(height, width), color="random" if colours else "grey")
    return Redrawn("live:srivastava", split, config, seed=0, glyphs=None, num_context=1)


def _others(origin: Redrawn) -> Iterator[tuple[str, Source | None]]:
    """Yield each kind of sequences by its name, None where there can be none."""
    # Sequences as long as the longest, or most of them would be too short to be scored.
    fields = origin.config.model_dump() | {"frames": origin.config.frames.high}
    for name, change in _changes(origin.config).items():
        if any(fields[field] != value for field, value in change.items()):
            yield name, _rendered(name, fields | change, origin, is_transposed=False)
    yield "transposed digits", _rendered("transposed", fields, origin, is_transposed=True)


def _changes(config: GeneratorConfig) -> dict[str, dict[str, Any]]:
    return {
        "1 digit": {"digits": 1},
        "2 digits": {"digits": 2},
        "3 digits": {"digits": 3},
        "half speed": {"speed": _times(config.speed, 0.5)},
        "double speed": {"speed": _times(config.speed, 2)},
        FASHION: {"glyphs": FASHION},
    }


def _rendered(
    name: str, fields: dict[str, Any], origin: Redrawn, *, is_transposed: bool
) -> LiveSource | None:
    from mmgen.glyphs import is_here, load_glyphs, transposed

    try:
        if not is_here(fields["glyphs"]):  # it would be downloaded, which nobody has asked for
            return None
        config = parse_config(fields)
        glyphs = origin.glyphs if config.glyphs == origin.config.glyphs else None
        if is_transposed:
            glyphs = transposed(glyphs or load_glyphs(config.glyphs))
        return LiveSource(f"out of domain, {name}", origin.split, config, origin.seed, glyphs)
    except (errors.InputError, InputError):
        return None


def _times(speed: FloatRange, factor: float) -> str:
    return f"{speed.low * factor!r}..{speed.high * factor!r}"
