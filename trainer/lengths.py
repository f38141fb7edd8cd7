"""Whether a source has the frames that a config asks for, and whether some sequences have fewer."""

from trainer.config import TrainConfig
from trainer.errors import InputError
from trainer.source import Source


def check_frames(source: Source, config: TrainConfig) -> None:
    """Refuse a source without the frames that are asked for, before any work.

    Sequences of different length are welcome, as long as some go on after the context; where all
    have one length, it must be enough.
    """
    longest, needed = source.sequence_shape[0], _needed(config)
    if longest >= needed or (source.shortest < longest > config.data.context):
        return
    where = f"{source.address}: sequences of {source.split} have "
    if not config.model.predicts:
        raise InputError(f"{where}{longest} frames, context needs {needed}; lower it")
    raise InputError(
        f"{where}{longest} frames{' at most' if source.shortest < longest else ''}, context "
        f"{config.data.context} and predict {config.data.predict} need {needed}; lower them"
    )


def has_short(source: Source, config: TrainConfig) -> bool:
    """Tell whether some sequences may have fewer frames than the config asks for."""
    return source.shortest < _needed(config)


def _needed(config: TrainConfig) -> int:
    return config.data.context + (config.data.predict if config.model.predicts else 0)
