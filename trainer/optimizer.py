"""From gradients to the next weights: scale, norm, clip, step, average, or nothing of all that.

Nothing here waits for the device or branches on what it computed: whether a gradient is finite, how
far it is clipped and how it was scaled are scalars on the device, which the optimizers read there.
So a step runs ahead of the device, and can be captured in a CUDA graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.errors import InputError

# What each optimizer keeps of a weight, in the weight's shape; "step" is a scalar.
_KEPT = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "paper-sgd": ("update",),
}

# fp16 ends at 65504. A mean's gradients vanish without a scale this large, a sum's need none; from
# there the scale finds its own way, between limits that keep it from becoming 0 or infinite.
_FIRST_SCALE = {"mean": 2.0**16, "sum": 1.0}
_SCALE_LIMITS = (2.0**-32, 2.0**32)
_STEPS_TO_GROW = 2_000

State = dict[str, dict[str, Tensor]]  # what is kept -> of which weight -> its values


class PaperSGD(torch.optim.Optimizer):
    """SGD as the code of Srivastava et al. (arXiv:1502.04681) has it, its clamp included.

    update = 0.9 * update - lr * (gradient + weight_decay * weight), clamped to +-1e-4
    weight = weight + update

    The clamp, there named gradient_clip, does not shrink with lr: gradients of a sum over pixels
    are so large that every weight moves by about 1e-4 in the direction of its sign. `step` uses the
    gradients up. It understands `grad_scale` and `found_inf` as torch's fused optimizers do.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    momentum, limit = 0.9, 1e-4

    def __init__(self, params: Any, lr: float = 1e-4, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(weights, group["lr"], group["weight_decay"])

    def _step(self, weights: list[Tensor], lr: float | Tensor, weight_decay: float) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        updates = [self._update(weight) for weight in weights]
        if self.grad_scale is not None:
            torch._foreach_div_(gradients, self.grad_scale)
        if weight_decay:
            torch._foreach_add_(gradients, weights, alpha=weight_decay)
        torch._foreach_mul_(gradients, -lr)
        torch._foreach_add_(gradients, updates, alpha=self.momentum)
        torch._foreach_clamp_min_(gradients, -self.limit)
        torch._foreach_clamp_max_(gradients, self.limit)
        if self.found_inf is not None:
            skip = self.found_inf > 0
            for new, update in zip(gradients, updates, strict=True):
                torch.where(skip, update, new, out=update)
                new.masked_fill_(skip, 0)
        else:
            torch._foreach_copy_(updates, gradients)
        torch._foreach_add_(weights, gradients)

    def _update(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["update"] = torch.zeros_like(weight)
        update: Tensor = state["update"]
        return update


class Updater:
    """Changes the weights of a model by their gradients, and keeps what that takes.

    model      on its device, not wrapped in another, with the weights that an average starts from
    precision  fp16 scales the loss, so that small gradients do not vanish

    num_skipped, skipped_in_a_row are integer scalars on the device: steps whose gradient was not
    finite, which left weights, moments and average as they were; under fp16 they lower the scale.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, precision: str) -> None:
        self.config = config
        self.weights = dict(model.named_parameters())
        self.optimizer = _make_optimizer(self.weights, config)
        device = next(iter(self.weights.values())).device
        self.num_skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros_like(self.num_skipped)
        self._scale: Tensor | None = None
        if precision == "fp16":
            self._scale = torch.full((), _FIRST_SCALE[config.loss_reduction], device=device)
            self._good_steps = torch.zeros_like(self.num_skipped)  # since the scale last changed
        self._average: dict[str, Tensor] = {}
        if config.ema is not None:
            self._average = {name: kept.detach().clone() for name, kept in self.weights.items()}

    def scaled(self, loss: Tensor) -> Tensor:
        """Return what backward is called on."""
        return loss if self._scale is None else loss * self._scale

    @torch.no_grad()
    def update(self, rate: float | Tensor) -> Tensor:
        """Take a step along the gradients and drop them; return their norm before clipping.

        rate     a scalar; a CUDA graph reads it anew each time if it is a tensor on the device
        returns  the norm of all gradients without their scale, a scalar on the device
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

        Values change places, not tensors: what knows the weights by address sees them too.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> State:
        """Return tensors that a resumed run needs, by what they are and by weight.

        They are the ones in use: the next update changes them. "average" has the names of the
        model's own state dict.
        """
        state: State = {"counts": self._counts()}
        if self._average:
            state["average"] = dict(self._average)
        for kind in _KEPT[self.config.optimizer]:
            state[kind] = {
                name: kept[kind]
                for name, weight in self.weights.items()
                if kind in (kept := self.optimizer.state.get(weight, {}))
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; InputError names what in it is of another run."""
        self._check(state)
        for name, counter in self._counts().items():
            counter.copy_(state["counts"][name])
        for name, average in self._average.items():
            average.copy_(state["average"][name])
        self.optimizer.state.clear()
        for kind in _KEPT[self.config.optimizer]:
            for name, values in state[kind].items():
                weight = self.weights[name]
                self.optimizer.state[weight][kind] = values.to(weight.device, copy=True)

    def _step(self, rate: float | Tensor, norm: Tensor, skip: Tensor) -> None:
        """Let the optimizer divide, look and step in one pass over what it reads anyway."""
        divisor = self._scale
        if self.config.clip_norm is not None:
            excess = (norm / self.config.clip_norm).clamp(min=1)
            divisor = excess if divisor is None else divisor * excess
        optimizer: Any = self.optimizer  # torch names these two attributes nowhere but in its code
        optimizer.grad_scale = None if divisor is None else divisor.float()
        optimizer.found_inf = skip.float()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if "capturable" in group:  # only a promise: the fused step always is
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
        if self.config.ema is None:
            return
        way = (1 - self.config.ema) * ~skip
        for name, average in self._average.items():
            average.lerp_(self.weights[name], way.to(average.dtype))

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._average.items():
            weight = self.weights[name]
            kept = weight.clone()  # one weight at a time: a third copy of all may not fit
            weight.copy_(average)
            average.copy_(kept)

    def _counts(self) -> dict[str, Tensor]:
        counts = {"skipped": self.num_skipped, "skipped_in_a_row": self.skipped_in_a_row}
        if self._scale is not None:
            counts |= {"scale": self._scale, "good_steps": self._good_steps}
        return counts

    def _check(self, state: Any) -> None:
        """Raise InputError unless a state has the form of this one's."""
        weights: dict[str, Tensor] = dict(self.weights)
        expected: State = {"counts": self._counts()}
        if self._average:
            expected["average"] = weights
        for kind in _KEPT[self.config.optimizer]:
            expected[kind] = weights
            if kind == "step":
                expected[kind] = dict.fromkeys(weights, torch.zeros(()))
        if not isinstance(state, dict) or set(state) != set(expected):
            raise InputError(f"the optimizer's state is not one of {self.config.optimizer}")
        for kind, parts in expected.items():
            found = state[kind]
            # A weight that no loss depends on has no moments.
            may_lack = kind in _KEPT[self.config.optimizer]
            for name, like in parts.items():
                if may_lack and name not in found:
                    continue
                if found[name].shape != like.shape or found[name].dtype != like.dtype:
                    raise InputError(f"{kind} of {name}")


def _make_optimizer(
    weights: dict[str, nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Make the optimizer of a config, whose weight decay leaves biases alone."""
    is_bias = {name: name.rpartition(".")[2].startswith("bias") for name in weights}
    groups = [
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
