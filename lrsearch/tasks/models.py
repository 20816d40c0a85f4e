"""The networks of the built-in tasks; all take float inputs and give logits (or a value)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them: inputs (B, ...) are flattened to ``sizes[0]``.

    Example:
        >>> mlp([64, 64, 64, 10])(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 10])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def square_net() -> nn.Sequential:
    """Linear layers 1-3-5-10-5-1 with sigmoids between and a ReLU at the end; (B, 1) -> (B, 1)."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((1, 3, 5, 10, 5, 1)):
        layers += [nn.Linear(wide, narrow), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1], nn.ReLU())


def net() -> nn.Sequential:
    """One convolution of 64 channels, max-pool 2, one linear layer; images 3x32x32 -> 10 logits.

    The published linear layer of 64*7*7 does not fit 32x32 images; 64*16*16 does.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 16 * 16, 10),
    )


class ConvNorm(nn.Module):
    """Convolution, max-pool where ``pool`` > 1, batch norm, ReLU.

    Pooling comes before the norm: that is four times less to normalise for the same network.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pool: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.pool(self.conv(x))))


class Mean(nn.Module):
    """Mean over height and width: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def convnet() -> nn.Sequential:
    """Four convolutions with batch norm, 0.15 M parameters; images 3x32x32 -> 10 logits.

    Made for speed on a CPU: the first convolution halves the image at once, and what follows has
    numbers of channels that matrix units like. Of sixteen shapes of this size, timed and trained
    for 8 epochs on 8,000 images of CIFAR-10 (validation loss 0.86 to 0.91 with one-cycle at 0.2;
    this one 0.865, mean of 3 seeds), none was both faster and better.
    """
    return nn.Sequential(
        ConvNorm(3, 32, kernel=4, stride=2),  # (B, 32, 16, 16)
        ConvNorm(32, 64, pool=2),  # (B, 64, 8, 8)
        ConvNorm(64, 144, pool=2),  # (B, 144, 4, 4)
        ConvNorm(144, 32),
        Mean(),
        nn.Linear(32, 10),
    )


class Residual(nn.Module):
    """Two convolutions with batch norm and ReLU, added to their input: (B, C, H, W) as it came."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x))
        return out


class Logits(nn.Module):
    """Maximum over height and width, a linear layer and an eighth of it: (B, C, H, W) -> (B, 10).

    The eighth keeps the first losses near those of guessing at rates that are high elsewhere.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.amax((2, 3))) / 8
        return out


def resnet9() -> nn.Sequential:
    """The quick residual network of DAWNBench, 6.6 M parameters (Page 2018).

    Made for few epochs of large batches on a GPU; images 3x32x32 -> 10 logits. Pooling comes
    before the norm here. Published: 94.1% of the test images after 24 epochs. Not trained in full
    here; at half of its width 15 epochs of batches of 512 gave 91.8% of the validation images
    (one-cycle at 0.4, one seed, one CPU core in bf16).
    """
    return nn.Sequential(
        ConvNorm(3, 64),
        ConvNorm(64, 128, pool=2),  # (B, 128, 16, 16)
        Residual(128),
        ConvNorm(128, 256, pool=2),  # (B, 256, 8, 8)
        ConvNorm(256, 512, pool=2),  # (B, 512, 4, 4)
        Residual(512),
        Logits(512),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of the paper)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(out + x)


def resnet20() -> nn.Sequential:
    """ResNet-20 for CIFAR-10, 0.27 M parameters (He et al. 2015, section 4.2)."""
    blocks: list[nn.Module] = []
    inputs = 16
    for outputs in (16, 32, 64):
        for i in range(3):
            blocks.append(BasicBlock(inputs, outputs, 2 if i == 0 and outputs > 16 else 1))
            inputs = outputs
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, Mean(), nn.Linear(64, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model


def resnet18() -> nn.Module:
    """torchvision's ResNet-18 with a stem for 32x32 images: 3x3 convolution, no max-pool."""
    from torchvision.models import resnet18 as torchvision_resnet18

    model: nn.Module = torchvision_resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
