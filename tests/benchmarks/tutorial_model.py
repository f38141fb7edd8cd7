"""The training step of the 2020 tutorial, as written: what our step is measured against.

A decoder calls nn.LSTM for one frame at a time and reads its own linear output; its first frame is
zeros, made anew each time. The names in the state dict are those of our model.

Letters: B batch, T frames, D values a frame.
"""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, num_values: int, hidden: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_values, hidden, num_layers, batch_first=True, dropout=dropout)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        _, state = self.lstm(frames)
        return state


class Decoder(nn.Module):
    def __init__(self, num_values: int, hidden: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_values, hidden, num_layers, batch_first=True, dropout=dropout)
        self.fc = nn.Linear(hidden, num_values)

    def forward(
        self, frame: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, state = self.lstm(frame, state)
        return self.fc(output), state


class TutorialModel(nn.Module):
    def __init__(
        self, device: str, num_values: int, hidden: int, num_layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        sizes = (num_values, hidden, num_layers, dropout)
        self.device = device
        self.encoder = Encoder(*sizes)
        self.reconstruct_decoder = Decoder(*sizes)
        self.predict_decoder = Decoder(*sizes)
        self.criterion = nn.MSELoss()
        self.to(device)

    def forward(self, past: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses of reconstruction and prediction; frames are (B, T, D)."""
        state = self.encoder(past)
        reconstructed = self.unroll(self.reconstruct_decoder, state, past.shape)
        predicted = self.unroll(self.predict_decoder, state, future.shape)
        return self.criterion(reconstructed, past.flip(1)), self.criterion(predicted, future)

    def unroll(
        self, decoder: Decoder, state: tuple[Tensor, Tensor], shape: tuple[int, ...]
    ) -> Tensor:
        batch, num_frames, num_values = shape
        frame = torch.zeros((batch, 1, num_values), dtype=torch.float).to(self.device)
        frames = []
        for _ in range(num_frames):
            frame, state = decoder(frame, state)
            frames.append(frame)
        return torch.cat(frames, dim=1)

    def roll_out(self, past: Tensor, num_frames: int) -> Tensor:
        """Predict more frames than the model was trained for."""
        batch, _, num_values = past.shape
        return self.unroll(
            self.predict_decoder, self.encoder(past), (batch, num_frames, num_values)
        )


def train_step(
    model: TutorialModel, optimizer: torch.optim.Optimizer, past: Tensor, future: Tensor
) -> Tensor:
    """Take one step; return its loss."""
    reconstruction_loss, prediction_loss = model(past, future)
    loss = reconstruction_loss + prediction_loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
