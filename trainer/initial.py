"""The first weights of a model."""

import math

import torch
from torch import nn

from trainer.cells import NUM_GATES, Stack
from trainer.config import ModelConfig

_PAPER_WEIGHT, _PAPER_PEEPHOLE = 0.01, 0.1  # config.proto of Srivastava et al.


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draw the weights of every stack and read-out, from torch's default generator."""
    for module in model.modules():
        if isinstance(module, Stack):
            _draw_stack(module, config)
        if isinstance(module, nn.Linear):
            _draw_read_out(module, config)


@torch.no_grad()
def set_brightness(model: nn.Module, config: ModelConfig, mean_value: float) -> None:
    """Let every frame be as bright as `mean_value` in (0, 1), where the config asks for it.

    Without it a sigmoid read-out begins at grey, and stays at the mean frame for long.
    """
    if config.output_bias != "mean":
        return
    squashes = config.output == "sigmoid"
    bias = math.log(mean_value / (1 - mean_value)) if squashes else mean_value
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.bias.fill_(bias)


def _draw_stack(stack: Stack, config: ModelConfig) -> None:
    within = 1 / math.sqrt(stack.hidden)
    for name, weight in stack.named_parameters():
        kind = name.rpartition("_l")[0]
        match config.init:
            case "torch":
                weight.uniform_(-within, within)
            case _ if kind.startswith("bias"):
                weight.zero_()
            case "paper":
                limit = _PAPER_PEEPHOLE if kind == "peephole" else _PAPER_WEIGHT
                weight.uniform_(-limit, limit)
            case "xavier" if kind == "peephole":
                weight.zero_()
            case "xavier":
                draw = nn.init.orthogonal_ if kind == "weight_hh" else nn.init.xavier_uniform_
                for gate in weight.chunk(NUM_GATES[stack.cell]):
                    draw(gate)
        if config.forget_bias is not None and kind.startswith("bias"):
            forget = weight[stack.hidden : 2 * stack.hidden]
            forget.fill_(config.forget_bias if kind == "bias_ih" else 0.0)


def _draw_read_out(read_out: nn.Linear, config: ModelConfig) -> None:
    within = 1 / math.sqrt(read_out.in_features)
    match config.init:
        case "torch":  # nn.Linear's own, in the same range as the stack's
            read_out.weight.uniform_(-within, within)
            read_out.bias.uniform_(-within, within)
        case "paper":
            read_out.weight.uniform_(-_PAPER_WEIGHT, _PAPER_WEIGHT)
            read_out.bias.zero_()
        case "xavier":
            nn.init.xavier_uniform_(read_out.weight)
            read_out.bias.zero_()
