"""Probes: from latents to answers, a linear one and a small network, each question by itself.

linear  which classes: multinomial logistic regression on the classes that are present, each with an
        equal share, by LBFGS; where and how fast: ridge regression, in closed form. The L2 penalty
        is the one of a grid that does best on a fifth of the labels, then all of them are fitted
mlp     one hidden layer of 256 by Adam, which ends when that fifth gets no better

Latents come standardised. What is not there (NaN) is asked of nobody.

Letters: n labelled sequences, D values of a latent, M values of an answer.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.probe_targets import Targets, column_means

FEWEST = 5  # labelled sequences: four to fit and one held out
_PENALTIES = tuple(10.0**power for power in range(2, -6, -1))  # of weights, beside mean losses
_LBFGS_STEPS = 100
_HIDDEN = 256
_RATE, _BATCH, _MAX_STEPS = 3e-4, 256, 1000
_NO_SPREAD = 1e-6  # rounding: units that never move, coordinates that never differ
_LOOK_EVERY, _PATIENCE = 20, 5  # steps between looks at what is held out; looks without a new best

Loss = Callable[[Tensor, Tensor], Tensor]  # of answers and targets
Answer = Callable[[Tensor], Tensor]  # standardised latents (N, D) -> (N, M)
Path = Callable[[Tensor, Tensor, Sequence[float]], Iterable[Answer]]  # strong penalties first
Probe = Callable[[Tensor], Targets]


class Scale(NamedTuple):
    """What gives columns of values mean 0 and spread 1, and takes it back; both (M,)."""

    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Measure columns (N, M), of which some values may be NaN."""
        centre = column_means(values)
        spread = (values - centre).square().nanmean(0).sqrt()
        return cls(centre, torch.where(spread > _NO_SPREAD, spread, 1))

    def down(self, values: Tensor) -> Tensor:
        """Standardise."""
        return (values - self.centre) / self.spread

    def up(self, values: Tensor) -> Tensor:
        """Take it back."""
        return values * self.spread + self.centre


def fit_linear(latents: Tensor, labels: Targets, seed: int) -> Probe:
    """Fit the linear probes; return what answers for latents (N, D).

    latents  float32 (n, D), standardised; n is FEWEST at least
    seed     which are held out
    """
    kept, held = hold_out(len(latents), seed)
    answers = [
        _fit_chosen(path, loss, latents, part, kept, held)
        for path, loss, part in zip(_PATHS, LOSSES, labels, strict=True)
    ]
    return lambda unseen: Targets(*(answer(unseen) for answer in answers))


def fit_mlp(latents: Tensor, labels: Targets, seed: int) -> Probe:
    """Fit the networks; otherwise as `fit_linear`, and their first weights are the seed's too."""
    kept, held = hold_out(len(latents), seed)
    scales = target_scales(labels)
    networks = [
        _train_network(latents, scale.down(part), first, kept, held, loss, seed)
        for loss, scale, first, part in zip(
            LOSSES, scales, first_answers(labels), labels, strict=True
        )
    ]

    @torch.no_grad()
    def answer(unseen: Tensor) -> Targets:
        pairs = zip(networks, scales, strict=True)
        return Targets(*(scale.up(network(unseen)) for network, scale in pairs))

    return answer


def target_scales(labels: Targets) -> tuple[Scale, Scale, Scale]:
    """Return the scales in which networks answer; classes have none."""
    zero = torch.zeros_like(labels.digits[0])
    as_is = Scale(zero, zero + 1)
    return as_is, Scale.of(labels.position), Scale.of(labels.velocity)


def first_answers(labels: Targets) -> Targets:
    """Return what is best answered to everybody, in those scales, (M,) each: networks begin so."""
    return Targets(_log_shares(labels.digits), *(torch.zeros_like(part[0]) for part in labels[1:]))


def _log_shares(present: Tensor) -> Tensor:
    return present.mean(0).clamp(min=1e-3).log()


def hold_out(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split places 0..count-1 at random: four fifths to learn from, a fifth to choose by."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    num_held = max(1, count // 5)
    return order[num_held:], order[:num_held]


def digits_loss(answer: Tensor, present: Tensor) -> Tensor:
    """Return the mean cross-entropy against equal shares of the classes present (N, C)."""
    shares = present / present.sum(1, keepdim=True).clamp(min=1)
    return F.cross_entropy(answer, shares)


def squared_loss(answer: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over what exists."""
    exists = target.isfinite()
    error = torch.where(exists, answer - torch.where(exists, target, 0), 0)
    return error.square().sum() / exists.sum().clamp(min=1)


def _fit_chosen(
    path: Path, loss: Loss, latents: Tensor, target: Tensor, kept: Tensor, held: Tensor
) -> Answer:
    """Fit with the penalty that does best on what is held out.

    The path ends where two penalties in a row did worse: weaker ones only fit noise, and for long.
    """
    best, lowest = 0, math.inf
    for number, answer in enumerate(path(latents[kept], target[kept], _PENALTIES)):
        error = loss(answer(latents[held]), target[held]).item()
        if error < lowest:
            best, lowest = number, error
        elif number > best + 1:
            break
    return next(iter(path(latents, target, _PENALTIES[best : best + 1])))


def ridge_path(latents: Tensor, target: Tensor, penalties: Sequence[float]) -> list[Answer]:
    """Fit ridge regressions (n, D) -> (n, M), one a penalty.

    Columns that exist for the same sequences are solved together.
    """
    weights = latents.new_zeros(len(penalties), latents.shape[1], target.shape[1])
    biases = column_means(target).repeat(len(penalties), 1)
    exists = target.isfinite()
    masks, column_mask = exists.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    for number, mask in enumerate(masks.T):
        if not mask.any():
            continue  # nobody knows: the mean stays
        columns = (column_mask == number).nonzero()[:, 0]
        x, y = latents[mask].double(), target[mask][:, columns].double()
        centre = x.mean(0)
        solved = _ridge(x - centre, y - y.mean(0), penalties)
        weights[:, :, columns] = solved.to(weights.dtype)
        biases[:, columns] = (y.mean(0) - centre @ solved).to(biases.dtype)
    return [_affine(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> Tensor:
    """Solve (X'X / n + penalty) W = X'Y / n for each penalty, or its dual where that is smaller."""
    count, is_dual = len(x), len(x) < x.shape[1]
    products = (x @ x.T if is_dual else x.T @ x) / count
    right = (y if is_dual else x.T @ y) / count
    identity = torch.eye(len(products), dtype=x.dtype, device=x.device)
    solved = [torch.linalg.solve(products + penalty * identity, right) for penalty in penalties]
    return torch.stack([x.T @ one if is_dual else one for one in solved])


def logistic_path(latents: Tensor, present: Tensor, penalties: Sequence[float]) -> Iterator[Answer]:
    """Fit logistic regressions (n, D) -> (n, C), each penalty from where the one before ended."""
    weight = latents.new_zeros(latents.shape[1], present.shape[1], requires_grad=True)
    bias = _log_shares(present).requires_grad_()
    for penalty in penalties:
        _minimise(weight, bias, latents, present, penalty)
        yield _affine(weight.detach().clone(), bias.detach().clone())


def _minimise(
    weight: Tensor, bias: Tensor, latents: Tensor, present: Tensor, penalty: float
) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_LBFGS_STEPS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = digits_loss(latents @ weight + bias, present) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]


def _affine(weight: Tensor, bias: Tensor) -> Answer:
    return lambda latents: latents @ weight + bias


LOSSES: tuple[Loss, Loss, Loss] = (digits_loss, squared_loss, squared_loss)  # as in Targets
_PATHS: tuple[Path, Path, Path] = (logistic_path, ridge_path, ridge_path)


class Best:
    """The state of a module when it answered best for what is held out."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._module, self._patience = module, patience
        self._error, self._looks_since = math.inf, 0
        self._state: dict[str, Tensor] = {}

    def note(self, error: float) -> bool:
        """Note the error of a look; tell whether there is no hope of a better one."""
        self._looks_since += 1
        if error < self._error or not self._state:
            self._error, self._looks_since = error, 0
            self._state = {n: v.detach().clone() for n, v in self._module.state_dict().items()}
        return self._looks_since >= self._patience

    def restore(self) -> None:
        """Give the module that state back."""
        self._module.load_state_dict(self._state)


def _train_network(
    latents: Tensor,
    target: Tensor,
    first: Tensor,
    kept: Tensor,
    held: Tensor,
    loss: Loss,
    seed: int,
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden, out = nn.Linear(latents.shape[1], _HIDDEN), nn.Linear(_HIDDEN, target.shape[1])
    begin_with(out, first)
    network = nn.Sequential(hidden, nn.ReLU(), out).to(latents.device)
    optimizer = torch.optim.Adam(network.parameters(), _RATE, fused=True)
    best = Best(network, _PATIENCE)
    for step, places in enumerate(shuffled_batches(kept, _BATCH, _MAX_STEPS, seed)):
        if step % _LOOK_EVERY == 0:
            with torch.no_grad():
                error = loss(network(latents[held]), target[held]).item()
            if best.note(error):
                break
        optimizer.zero_grad()
        loss(network(latents[places]), target[places]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    best.restore()
    return network


@torch.no_grad()
def begin_with(layer: nn.Linear, answer: Tensor) -> None:
    """Let a layer say the same to everybody: what is never learned is answered by chance."""
    layer.weight.zero_()
    layer.bias.copy_(answer)


def shuffled_batches(places: Tensor, size: int, count: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of places, in passes over all of them, each in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    waiting = places[:0]
    for _ in range(count):
        if len(waiting) < min(size, len(places)):
            order = torch.randperm(len(places), generator=generator)
            waiting = torch.cat([waiting, places[order]])
        yield waiting[:size]
        waiting = waiting[size:]
