"""TrainConfig and its parts: every choice of a run, with its unit, default and check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from mmgen.fields import Float, Frozen, Integer, parse_assignments, read_toml, validated
from trainer.errors import InputError


def _decoders(value: Any) -> Any:
    """Read "predict", "predict, reconstruct" or a list of them, in any order."""
    names = value if isinstance(value, (list, tuple)) else str(value).split(",")
    wanted = {str(name).strip() for name in names}
    known = [name for name in ("reconstruct", "predict") if name in wanted]
    return ",".join(known) if wanted == set(known) else value


Decoders = Annotated[
    Literal["reconstruct,predict", "reconstruct", "predict"], BeforeValidator(_decoders)
]
Share = Annotated[Float, Field(ge=0, le=1)]
Dropout = Annotated[Float, Field(ge=0, lt=1)]


class DataConfig(Frozen):
    """How sequences are cut and grouped."""

    context: Integer = Field(10, ge=1, description="frames the model sees")
    reconstruct: Integer | None = Field(
        None, ge=1, description="last frames of the context that it reconstructs; unset: all"
    )
    predict: Integer = Field(10, ge=1, description="frames after the context that it predicts")
    batch_size: Integer = Field(
        128, ge=1, description="sequences of one optimizer step, over all ranks"
    )

    @property
    def num_reconstructed(self) -> int:
        """Frames of the context that a reconstruction has."""
        return self.context if self.reconstruct is None else self.reconstruct

    @model_validator(mode="after")
    def _check_reconstruct(self) -> Self:
        if self.num_reconstructed > self.context:
            raise ValueError(
                f"reconstruct {self.reconstruct} is more than the context of {self.context} frames"
            )
        return self


class ModelConfig(Frozen):
    """The autoencoder: defaults are those of the 2020 tutorial."""

    hidden: Integer = Field(2048, ge=1, description="units of each recurrent layer")
    layers: Integer = Field(
        2, ge=1, description="recurrent layers of the encoder and of each decoder"
    )
    cell: Literal["lstm", "peephole", "gru", "rnn"] = Field(
        "lstm",
        description="lstm, gru and rnn as torch has them; peephole: the LSTM of Srivastava et al.",
    )
    decoders: Decoders = Field(
        "reconstruct,predict",
        description="what is decoded: reconstruct (autoencoder), predict (future predictor), both",
    )
    decoder_input: Literal["free", "unconditional", "teacher", "scheduled"] = Field(
        "free",
        description="what a decoder reads after its first frame: its own output, nothing, the true "
        "frame while training (its own output in use), or a mix of true frames and own output",
    )
    feedback: Literal["linear", "sigmoid", "detached"] = Field(
        "linear",
        description="how a decoder reads its own output: as the read-out gives it, squashed, or "
        "as the frame it stands for and without gradient",
    )
    output: Literal["linear", "sigmoid"] = Field(
        "linear", description="how a read-out becomes a frame"
    )
    reverse: bool = Field(True, description="reconstruct from the last frame back to the first")
    copy_initial_state: bool = Field(
        False, description="a decoder's first frame is read out of the encoder's state itself"
    )
    dropout: Dropout = Field(0.1, description="share of values dropped between layers")
    input_dropout: Dropout = Field(0.0, description="share of input values dropped")
    output_dropout: Dropout = Field(0.0, description="share of values dropped before the read-out")
    init: Literal["torch", "paper", "xavier"] = Field(
        "torch",
        description="first weights: uniform within 1/sqrt(hidden); uniform within 0.01 and biases "
        "0; or Xavier, recurrent ones orthogonal, biases 0",
    )
    forget_bias: Float | None = Field(
        None, allow_inf_nan=False, description="first bias of the forget gates; unset: by init"
    )
    output_bias: Literal["init", "mean"] = Field(
        "init",
        description="first bias of the read-outs: by init, or such that each frame is as bright as "
        "the mean of the training data",
    )

    @property
    def reconstructs(self) -> bool:
        """Whether there is a reconstruction decoder."""
        return "reconstruct" in self.decoders

    @property
    def predicts(self) -> bool:
        """Whether there is a prediction decoder."""
        return "predict" in self.decoders

    @model_validator(mode="after")
    def _check_forms(self) -> Self:
        if self.forget_bias is not None and self.cell not in ("lstm", "peephole"):
            raise ValueError(f"cell {self.cell} has no forget gate; leave forget_bias unset")
        if self.feedback != "linear" and self.decoder_input == "unconditional":
            raise ValueError("decoder_input unconditional feeds nothing back; set feedback=linear")
        return self


class OptimizerConfig(Frozen):
    """What is minimised, and how the weights change."""

    loss: Literal["mse", "ce"] = Field(
        "mse", description="squared error, or cross-entropy of the frame as probabilities"
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="over pixels, frames and sequences; sum is what Srivastava et al. take",
    )
    reconstruct_weight: Float = Field(
        1.0, ge=0, allow_inf_nan=False, description="factor of the reconstruction loss"
    )
    predict_weight: Float = Field(
        1.0, ge=0, allow_inf_nan=False, description="factor of the prediction loss"
    )
    optimizer: Literal["adam", "adamw", "paper-sgd"] = Field(
        "adam",
        description="paper-sgd: momentum 0.9 and updates clamped, as Srivastava et al. have it",
    )
    lr: Float = Field(
        5e-4,
        gt=0,
        allow_inf_nan=False,
        description="learning rate; the peak where the schedule has one",
    )
    schedule: Literal["constant", "cosine", "one-cycle", "staircase"] = Field(
        "constant",
        description="learning rate over the steps; staircase: times 0.9 every 10 000 steps",
    )
    warmup: Integer = Field(
        0, ge=0, description="steps of linear warm-up of a constant or cosine schedule"
    )
    weight_decay: Float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="AdamW's decay, or the L2 penalty of adam and paper-sgd; never of biases",
    )
    clip_norm: Float | None = Field(
        None, gt=0, allow_inf_nan=False, description="largest norm of the gradient; unset: any"
    )
    ema: Float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the averaged weights that stays at each step; unset: no average",
    )
    accumulate: Integer = Field(
        1, ge=1, description="parts that a rank cuts its batch into, for memory"
    )
    truth_start: Share = Field(
        1.0, description="share of true frames a scheduled decoder reads at the first step"
    )
    truth_end: Share = Field(0.0, description="the same after truth_steps steps, and from then on")
    truth_steps: Integer = Field(
        5_000, ge=1, description="steps from truth_start to truth_end, linear"
    )

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.warmup and self.schedule not in ("constant", "cosine"):
            raise ValueError(
                "warmup is for the schedules constant and cosine, "
                f"not {self.schedule}; set warmup=0"
            )
        return self


Metric = Literal["prediction.mse", "prediction.ce", "reconstruction.mse", "reconstruction.ce"]


class RunConfig(Frozen):
    """How long, where, and what is written on the way."""

    steps: Integer = Field(10_000, ge=1, description="optimizer steps")
    seed: Integer = Field(0, ge=0, lt=2**63, description="weights, order of the data and dropout")
    device: str = Field("auto", description="auto (CUDA when it is there), cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="of matrix products; auto: bf16 where the device has instructions for it",
    )
    log_every: Integer = Field(10, ge=1, description="steps between two lines of metrics.jsonl")
    eval_every: Integer = Field(500, ge=1, description="steps between two looks at the split val")
    eval_sequences: Integer = Field(256, ge=1, description="sequences of val looked at")
    best: Metric | None = Field(
        None, description="what a look at val is best by; unset: the first of mse that there is"
    )
    patience: Integer | None = Field(
        None, ge=1, description="looks at val without a new best that end the run; unset: none do"
    )
    checkpoint_every: Integer = Field(500, ge=1, description="steps between two checkpoints")
    cache_gb: Float = Field(
        20.0,
        gt=0,
        allow_inf_nan=False,
        description="disk, in 10^9 bytes, for the shards of remote data sets read last",
    )
    keep_checkpoints: Integer = Field(
        2, ge=1, description="newest checkpoints that stay on disk, beside the best"
    )
    max_skipped: Integer = Field(
        10, ge=1, description="steps in a row with a loss or gradient not finite that end the run"
    )
    tensorboard: bool = Field(False, description="also write curves and rollouts for TensorBoard")


class TrainConfig(Frozen):
    """All of a run; field names are unique over the parts, so `hidden=256` needs no section."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()

    @property
    def best_metric(self) -> str:
        """What a look at val is best by, such as prediction.mse."""
        head = "prediction" if self.model.predicts else "reconstruction"
        return self.run.best or f"{head}.mse"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.optimizer.loss == "ce" and self.model.output != "sigmoid":
            raise ValueError("loss: ce takes probabilities; set output=sigmoid, or loss=mse")
        self._check_decoders()
        if self.data.batch_size % self.optimizer.accumulate:
            raise ValueError(
                f"accumulate: {self.optimizer.accumulate} parts do not divide "
                f"batch_size {self.data.batch_size}"
            )
        return self

    def _check_decoders(self) -> None:
        """Refuse what needs a decoder that there is not, and decoders that learn nothing."""
        there = self.model.decoders.split(",")
        needed = "predict" if self.best_metric.startswith("prediction") else "reconstruct"
        if needed not in there:
            raise ValueError(
                f"best: {self.best_metric} needs the decoder {needed}, decoders is {there[0]}"
            )
        if self.data.reconstruct is not None and not self.model.reconstructs:
            raise ValueError("reconstruct: decoders is predict; leave it unset")
        weights = [f"{name}_weight" for name in there]
        if not any(getattr(self.optimizer, weight) for weight in weights):
            raise ValueError(f"{', '.join(weights)}: 0 leaves nothing to learn")


def _paper(layers: int) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(batch_size=80),
        model=ModelConfig(
            layers=layers,
            cell="peephole",
            decoder_input="teacher",
            feedback="sigmoid",
            output="sigmoid",
            dropout=0.0,
            init="paper",
        ),
        optimizer=OptimizerConfig(
            loss="ce",
            loss_reduction="sum",
            optimizer="paper-sgd",
            lr=1e-4,
            schedule="staircase",
            weight_decay=1e-4,
        ),
        run=RunConfig(steps=1_000_000, best="prediction.ce"),
    )


PRESETS: dict[str, TrainConfig] = {
    # The model and recipe of the 2020 tutorial.
    "tutorial": TrainConfig(),
    # The conditional composite models of Srivastava et al., whose code trains until it is stopped.
    "paper-1layer": _paper(1),
    "paper-2layer": _paper(2),
    # The FC-LSTM that Shi et al. (arXiv:1506.04214) compare with.
    "shi-fc-lstm": TrainConfig(
        data=DataConfig(batch_size=16),
        model=ModelConfig(
            cell="peephole",
            decoders="predict",
            decoder_input="unconditional",
            output="sigmoid",
            dropout=0.0,
            output_bias="mean",
        ),
        optimizer=OptimizerConfig(loss="ce", lr=1e-3),
        run=RunConfig(steps=100_000, best="prediction.ce"),
    ),
    # Learns to see within minutes on two CPU cores.
    "small": TrainConfig(
        data=DataConfig(batch_size=32),
        model=ModelConfig(hidden=512, dropout=0.0),
        optimizer=OptimizerConfig(lr=2e-3, schedule="one-cycle"),
        run=RunConfig(steps=2_000, precision="auto"),
    ),
}

# What --resume may change: it alters neither the weights nor metrics.jsonl's training lines.
RESUMABLE_FIELDS = frozenset({"device", "checkpoint_every", "eval_every", "cache_gb"})


def find_preset(name: str) -> TrainConfig:
    """Return the config of a named preset; InputError lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} does not exist; choose from: {', '.join(PRESETS)}")
    return PRESETS[name]


def load_config(
    preset: str = "tutorial", path: Path | None = None, assignments: Sequence[str] = ()
) -> TrainConfig:
    """Resolve preset < TOML file (fields alone or in sections) < FIELD=VALUE."""
    fields = find_preset(preset).model_dump()
    if path is not None:
        for section, values in _read_sections(path).items():
            fields[section] |= values
    parts = field_parts()
    for name, value in parse_assignments(assignments).items():
        if name not in parts:
            raise InputError(f"field {name!r} does not exist; fields are: {', '.join(parts)}")
        fields[parts[name]][name] = value
    return parse_config(fields)


def is_set(name: str, path: Path | None, assignments: Sequence[str]) -> bool:
    """Tell whether somebody set a field, in the file or by FIELD=VALUE; a preset is nobody."""
    if name in parse_assignments(assignments):
        return True
    return path is not None and name in _read_sections(path).get(field_parts()[name], {})


def _read_sections(path: Path) -> dict[str, Any]:
    """Read the fields of a TOML file, in sections or without, by section; problems are its."""
    parts = field_parts()
    sections: dict[str, Any] = {}
    for name, value in read_toml(path).items():
        if isinstance(value, dict) and name in TrainConfig.model_fields:
            sections.setdefault(name, {}).update(value)
        elif name in parts:  # after the sections: optimizer is the name of one, and of a field
            sections.setdefault(parts[name], {})[name] = value
        else:
            sections[name] = value
    _check_each(sections, path)
    return sections


def _check_each(sections: dict[str, Any], path: Path) -> None:
    """Check a file's fields one by one: whether they go together, the whole config says."""
    try:
        TrainConfig.model_validate(sections)
    except ValidationError as error:
        # What a check of several fields says is of a part, or of all; a field has two places.
        if any(len(problem["loc"]) > 1 for problem in error.errors()) or not all(
            problem["type"] == "value_error" for problem in error.errors()
        ):
            validated(TrainConfig, sections, path)


def parse_config(fields: dict[str, Any]) -> TrainConfig:
    """Check the fields of a run or a caller; InputError names the first bad one."""
    return validated(TrainConfig, fields)


def field_parts() -> dict[str, str]:
    """Return field -> the part of TrainConfig that holds it."""
    return {
        name: part
        for part, field in TrainConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    }


def first_difference(stored: TrainConfig, wanted: TrainConfig) -> str | None:
    """Say which field keeps a run from being resumed, None if none does."""
    may_change = RESUMABLE_FIELDS | (
        {"steps"} if wanted.optimizer.schedule == stored.optimizer.schedule == "constant" else set()
    )
    for name, part in field_parts().items():
        there, here = (getattr(getattr(config, part), name) for config in (stored, wanted))
        if name not in may_change and there != here:
            return f"{name} is {there} in the run, asked for is {here}"
    return None
