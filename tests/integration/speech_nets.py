"""silero VAD of 16 kHz with its state outside: the network whose weights the package ships as safetensors."""

from typing import Tuple

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """One window of 512 samples behind 64 of the one before it -> probability of speech, next state."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, x: Tensor, state: Tensor) -> Tuple[Tensor, Tensor]:
        spectrum = self.stft_conv(nn.functional.pad(x.unsqueeze(1), [0, 64], mode="reflect"))
        y = (spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2).sqrt()
        y = torch.relu(self.conv2(torch.relu(self.conv1(y))))
        y = torch.relu(self.conv4(torch.relu(self.conv3(y)))).squeeze(-1)
        h, c = self.lstm_cell(y, (state[0], state[1]))
        return torch.sigmoid(self.final_conv(torch.relu(h.unsqueeze(-1)))).squeeze(1), torch.stack([h, c])


def windows():
    return Windows().eval()
