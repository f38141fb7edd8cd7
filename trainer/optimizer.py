"""From gradients to the next weights: scale, norm, clip, step, average, or nothing of all that.

Nothing here waits for the device or branches on what it computed: whether a gradient is finite, how
far it is clipped and how it was scaled are scalars on the device, which the optimizers read there.
So steps are queued ahead of the device, and one can be captured in a CUDA graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.errors import InputError

# What each optimizer keeps of a weight: a number of steps, or values in the weight's own shape.
_KEPT = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "paper-sgd": ("update",),
}

# fp16 ends at 65504. The gradients of a mean vanish without a scale this large, those of a sum need
# none; from there the scale finds its own way, and can become neither 0 nor infinite.
_FIRST_SCALE = {"mean": 2.0**16, "sum": 1.0}
_SCALE_LIMITS = (2.0**-32, 2.0**32)
_STEPS_TO_GROW = 2_000

State = dict[str, dict[str, Tensor]]  # what is kept -> of which weight, or which counter -> values


class PaperSGD(torch.optim.Optimizer):
    """SGD as the code of Srivastava et al. (arXiv:1502.04681) has it, its clamp included.

    update = 0.9 * update - lr * (gradient + weight_decay * weight), clamped to +-1e-4
    weight = weight + update

    The clamp, there named gradient_clip, does not shrink with lr: gradients of a sum over pixels
    are so large that most weights move by 1e-4 in the direction of their sign. `step` uses the
    gradients up. It heeds what torch's fused optimizers do: gradients are divided by `grad_scale`
    where there is one, and where `found_inf` is 1 nothing changes. The state of each weight holds
    its update before the first step.
    """

    momentum, limit = 0.9, 1e-4
    grad_scale: Tensor | None
    found_inf: Tensor

    def __init__(self, params: Any, lr: float = 1e-4, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights that have a gradient."""
        assert closure is None, "gradients come from outside"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(weights, group["lr"], group["weight_decay"])

    def _step(self, weights: list[Tensor], lr: float | Tensor, weight_decay: float) -> None:
        new = [weight.grad for weight in weights if weight.grad is not None]
        updates = [self.state[weight]["update"] for weight in weights]
        if self.grad_scale is not None:
            torch._foreach_div_(new, self.grad_scale)
        if weight_decay:
            torch._foreach_add_(new, weights, alpha=weight_decay)
        torch._foreach_mul_(new, -lr)
        torch._foreach_add_(new, updates, alpha=self.momentum)
        torch._foreach_clamp_min_(new, -self.limit)
        torch._foreach_clamp_max_(new, self.limit)
        skip = self.found_inf > 0
        for update, values in zip(updates, new, strict=True):
            torch.where(skip, update, values, out=update)
            values.masked_fill_(skip, 0)
        torch._foreach_add_(weights, new)


class Updater:
    """Changes the weights of a model by their gradients, and keeps what that takes.

    model      on its device, itself and no wrapper, with the weights that an average starts from
    precision  fp16 scales the loss, so that small gradients do not vanish

    num_skipped, skipped_in_a_row are int64 scalars on the device: steps whose gradient was not
    finite, which left weights, moments and average as they were; under fp16 they lower the scale.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, precision: str) -> None:
        self.config = config
        self.weights: dict[str, Tensor] = dict(model.named_parameters())
        self.optimizer = _make_optimizer(self.weights, config)
        device = next(iter(self.weights.values())).device
        self.num_skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros_like(self.num_skipped)
        counts = {"skipped": self.num_skipped, "skipped_in_a_row": self.skipped_in_a_row}
        self._scale: Tensor | None = None
        if precision == "fp16":
            self._scale = torch.full((), _FIRST_SCALE[config.loss_reduction], device=device)
            self._good_steps = torch.zeros_like(self.num_skipped)
            counts |= {"scale": self._scale, "good_steps": self._good_steps}
        self._state: State = {"counts": counts, **self._keep()}
        self._average: dict[str, Tensor] = {}
        if config.ema is not None:
            self._average = {name: now.detach().clone() for name, now in self.weights.items()}
            self._state["average"] = self._average

    def scaled(self, loss: Tensor) -> Tensor:
        """Return what backward is called on."""
        return loss if self._scale is None else loss * self._scale

    @torch.no_grad()
    def update(self, rate: float | Tensor) -> Tensor:
        """Take a step along the gradients, those of the whole batch of all ranks; drop them.

        rate     a scalar; a CUDA graph reads it anew at each replay if it is a tensor on the device
        returns  the norm of the gradient before clipping, a scalar on the device
        """
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._scale is not None:
            norm = norm / self._scale
        skip = ~norm.isfinite()
        self._step(rate, norm, skip)
        self._count(skip)
        self._follow(skip)
        for weight in self.weights.values():
            weight.grad = None
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model hold the averaged weights for a while, if the config asks for an average.

        Values change places, not tensors, so that whoever knows a weight by its address sees them.
        Neither save nor update inside: what is called the average is then the weights.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> State:
        """Return what a resumed run needs; not copies, so the next update changes them.

        "average", where there is one, has the names of the model's own state dict.
        """
        return {kind: dict(parts) for kind, parts in self._state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; InputError names the first part that has another form here."""
        _check_form(state, self._state)
        for kind, parts in self._state.items():
            for name, values in parts.items():
                values.copy_(state[kind][name])

    def _keep(self) -> State:
        """Give the optimizer, before its first step, all that it keeps.

        What it allocated in a step that is captured would begin anew at each replay.
        """
        state: State = {}
        for kind in _KEPT[self.config.optimizer]:
            state[kind] = {
                name: weight.new_zeros((), dtype=torch.float32)
                if kind == "step"
                else torch.zeros_like(weight)
                for name, weight in self.weights.items()
            }
            for name, values in state[kind].items():
                self.optimizer.state[self.weights[name]][kind] = values
        return state

    def _step(self, rate: float | Tensor, norm: Tensor, skip: Tensor) -> None:
        """Leave dividing and skipping to the optimizer: no pass over the gradients for either."""
        divisor = self._scale
        if self.config.clip_norm is not None:
            excess = (norm / self.config.clip_norm).clamp(min=1)
            divisor = excess if divisor is None else divisor * excess
        optimizer: Any = self.optimizer  # torch declares neither attribute
        optimizer.grad_scale = None if divisor is None else divisor.float()
        optimizer.found_inf = skip.float()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if "capturable" in group:  # torch asks for it when, and warns of it unless, it captures
                group["capturable"] = skip.is_cuda and torch.cuda.is_current_stream_capturing()
        self.optimizer.step()

    def _count(self, skip: Tensor) -> None:
        self.num_skipped.add_(skip)
        self.skipped_in_a_row.add_(1).mul_(skip)
        if self._scale is None:
            return
        self._good_steps.add_(1).mul_(~skip)
        grows = self._good_steps >= _STEPS_TO_GROW
        self._scale.mul_(1 + grows.float() - skip.float() / 2).clamp_(*_SCALE_LIMITS)
        self._good_steps.mul_(~grows)

    def _follow(self, skip: Tensor) -> None:
        """Let the average come nearer to the weights, unless they did not move."""
        if self.config.ema is None:
            return
        way = (1 - self.config.ema) * ~skip
        for name, average in self._average.items():
            average.lerp_(self.weights[name], way.to(average.dtype))

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._average.items():
            weight = self.weights[name]
            kept = weight.clone()  # one weight at a time: there may be no memory for all
            weight.copy_(average)
            average.copy_(kept)


def _make_optimizer(weights: dict[str, Tensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a config; it lets biases decay nowhere."""
    is_bias = {name: name.rpartition(".")[2].startswith("bias") for name in weights}
    groups: list[dict[str, Any]] = [
        {
            "params": [weight for name, weight in weights.items() if is_bias[name] == biases],
            "weight_decay": 0.0 if biases else config.weight_decay,
        }
        for biases in (False, True)
    ]
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, fused=True)
        case "paper-sgd":
            return PaperSGD(groups, lr=config.lr)


def _check_form(state: Any, like: State) -> None:
    """Raise InputError where a saved state does not have the parts, types and shapes of another."""
    found, wanted = _forms(state), _forms(like)
    for part in (*wanted, *found):
        if found.get(part) != wanted.get(part):
            there, here = found.get(part, "missing"), wanted.get(part, "unknown")
            raise InputError(f"the optimizer's saved state: {part} is {there} there, {here} here")


def _forms(state: Any) -> dict[str, str]:
    """Return what there is in a state, however it is made."""
    if isinstance(state, Tensor):
        return {"": f"{state.dtype} {tuple(state.shape)}".removeprefix("torch.")}
    if not isinstance(state, dict):
        return {"": type(state).__name__}
    return {
        f"{name}/{part}".removesuffix("/"): form
        for name, values in state.items()
        for part, form in _forms(values).items()
    }
