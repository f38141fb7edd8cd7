"""Whether a source has the frames that training, scoring or a model asks for, before any work."""

from trainer.config import DataConfig, TrainConfig
from trainer.errors import InputError
from trainer.model import VideoAutoencoder
from trainer.source import Source


def check_frames(source: Source, config: TrainConfig) -> None:
    """Refuse to train on a source without the frames that are asked for.

    Sequences of different length are welcome, as long as some go on after the context; where all
    have one length, it must be enough.
    """
    longest = source.sequence_shape[0]
    needed = _needed(config.data, config.model.predicts)
    if longest >= needed or (source.shortest < longest > config.data.context):
        return
    where = f"{source.address}: sequences of {source.split} have "
    if not config.model.predicts:
        raise InputError(f"{where}{longest} frames, context needs {needed}; lower it")
    raise InputError(
        f"{where}{longest} frames{' at most' if source.shortest < longest else ''}, context "
        f"{config.data.context} and predict {config.data.predict} need {needed}; lower them"
    )


def check_lengths(source: Source, data: DataConfig, *, predicts: bool = True) -> None:
    """Refuse to score on sequences shorter than context + predict, or than context."""
    needed = _needed(data, predicts)
    if source.shortest < needed:
        asked = f"{data.context} and predict {data.predict} need" if predicts else "needs"
        raise InputError(
            f"{source.address}: sequences of {source.split} have {source.shortest} frames, context "
            f"{asked} {needed}; lower {'them' if predicts else 'it'}"
        )


def check_context(source: Source, num_context: int) -> None:
    """Refuse to encode sequences shorter than what the model reads."""
    if source.shortest < num_context:
        raise InputError(
            f"{source.address}: sequences of {source.split} have {source.shortest} frames, the "
            f"model reads {num_context}; take longer ones"
        )


def check_shape(source: Source, model: VideoAutoencoder) -> None:
    """Refuse frames that are not the model's."""
    if source.sequence_shape[1:] != model.frame_shape:
        raise InputError(
            f"{source.address}: frames are {source.sequence_shape[1:]}, the model was trained on "
            f"{model.frame_shape}"
        )


def has_short(source: Source, config: TrainConfig) -> bool:
    """Tell whether some sequences may have fewer frames than the config asks for."""
    return source.shortest < _needed(config.data, config.model.predicts)


def _needed(data: DataConfig, predicts: bool) -> int:
    return data.context + (data.predict if predicts else 0)
