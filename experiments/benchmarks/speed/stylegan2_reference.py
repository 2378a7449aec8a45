"""StyleGAN2 in PyTorch, restated from arXiv 1912.04958 (configurations e and f) in the form that is
quick there too: styles scale the input of a convolution and its output, instead of a kernel for
each example.

No package has it. Maps are (B, C, H, W), convolutions' kernels (O, I, k, k), those of fully
connected layers (I, O). Parameters have the names of `models.stylegan2`, so that a test can
compare both.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from swin_jax.models.stylegan2.style_space import channels_at, num_ws, resolutions


def activate(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU times sqrt(2)."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def filter_kernel(x: torch.Tensor, gain: float) -> torch.Tensor:
    """The filter [1, 3, 3, 1] for each channel of maps, (C, 1, 4, 4) of the sum `gain`."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype)
    return (torch.outer(taps, taps) * (gain / 64)).expand(x.shape[1], 1, 4, 4)


def smooth(x: torch.Tensor, gain: float, padding: int) -> torch.Tensor:
    """Filters maps."""
    return F.conv2d(x, filter_kernel(x, gain), padding=padding, groups=x.shape[1])


class FullyConnected(nn.Module):
    """(B, I) -> (B, O); the stored kernel is 1 / `multiplier` times as large as it takes effect."""

    def __init__(self, inputs, outputs, multiplier=1.0, bias=0.0, activation=False):
        super().__init__()
        self.scales = multiplier / math.sqrt(inputs), multiplier
        self.activation = activation
        self.kernel = nn.Parameter(torch.randn(inputs, outputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))

    def forward(self, x):
        x = torch.addmm(self.bias * self.scales[1], x, self.kernel * self.scales[0])
        return activate(x) if self.activation else x


class Mapping(nn.Module):
    """z (B, z_dim) -> w (B, w_dim)."""

    def __init__(self, z_dim, w_dim, layers):
        super().__init__()
        self.layers = layers
        for index in range(layers):
            layer = FullyConnected(w_dim if index else z_dim, w_dim, 0.01, activation=True)
            setattr(self, f"fc{index}", layer)

    def forward(self, z):
        x = z * torch.rsqrt((z * z).mean(1, keepdim=True) + 1e-8)
        for index in range(self.layers):
            x = getattr(self, f"fc{index}")(x)
        return x


class Modulated(nn.Module):
    """A modulated convolution with its affine layer: 3 x 3 with noise and activation,
    or 1 x 1 to colors.
    """

    def __init__(self, inputs, outputs, w_dim, side, up=False, rgb=False):
        super().__init__()
        size = 1 if rgb else 3
        self.up, self.rgb, self.scale = up, rgb, 1 / math.sqrt(inputs * size**2)
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.kernel = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if not rgb:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise_const", torch.randn(side, side))

    def forward(self, x, w):
        style, kernel = self.affine(w), self.kernel * self.scale
        x = x * style[:, :, None, None]
        if self.rgb:
            return F.conv2d(x, kernel) + self.bias[:, None, None]
        if self.up:
            x = smooth(F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2), 4.0, 1)
        else:
            x = F.conv2d(x, kernel, padding=1)
        power = (style * style) @ (kernel * kernel).sum((2, 3)).T  # (B, O)
        x = x * torch.rsqrt(power + 1e-8)[:, :, None, None]
        return activate(x + self.noise_const * self.noise_strength + self.bias[:, None, None])


class SynthesisBlock(nn.Module):
    """The layers of one resolution: maps and image of the one before -> those of this one."""

    def __init__(self, inputs, outputs, w_dim, side):
        super().__init__()
        self.row = num_ws(side) - 3
        if inputs:
            self.conv0 = Modulated(inputs, outputs, w_dim, side, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        self.conv1 = Modulated(outputs, outputs, w_dim, side)
        self.torgb = Modulated(outputs, 3, w_dim, side, rgb=True)

    def forward(self, x, image, ws):
        if x is None:
            x = self.const.expand(ws.shape[0], *self.const.shape)
        else:
            x = self.conv0(x, ws[:, self.row])
        x = self.conv1(x, ws[:, self.row + 1])
        rgb = self.torgb(x, ws[:, self.row + 2])
        if image is None:
            return x, rgb
        larger = F.conv_transpose2d(image, filter_kernel(image, 4.0), stride=2, padding=1, groups=3)
        return x, larger + rgb


class Generator(nn.Module):
    """z (B, z_dim) -> images (B, 3, resolution, resolution); arguments as of
    `models.stylegan2.Generator`.
    """

    def __init__(
        self,
        resolution,
        channel_base=32768,
        channel_max=512,
        z_dim=512,
        w_dim=512,
        mapping_layers=8,
    ):
        super().__init__()
        self.rows = num_ws(resolution)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        self.synthesis = nn.ModuleDict()
        before = 0
        for side in resolutions(resolution):
            channels = channels_at(side, channel_base, channel_max)
            self.synthesis[f"b{side}"] = SynthesisBlock(before, channels, w_dim, side)
            before = channels

    def forward(self, z):
        ws = self.mapping(z)[:, None].expand(-1, self.rows, -1)
        x, image = None, None
        for block in self.synthesis.values():
            x, image = block(x, image, ws)
        return image


class Convolution(nn.Module):
    """A convolution of the discriminator, which may halve the size."""

    def __init__(self, inputs, outputs, size=3, down=False, gain=1.0, plain=False):
        super().__init__()
        self.down, self.gain, self.plain, self.size = down, gain, plain, size
        self.scale = 1 / math.sqrt(inputs * size**2)
        self.kernel = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = None if plain else nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        kernel = self.kernel * self.scale
        if self.down:
            x = F.conv2d(smooth(x, 1.0, 1 + self.size // 2), kernel, self.bias, stride=2)
        else:
            x = F.conv2d(x, kernel, self.bias, padding=self.size // 2)
        return x * self.gain if self.plain else activate(x) * self.gain


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a shortcut; the first block reads pixels."""

    def __init__(self, inputs, outputs, is_first):
        super().__init__()
        gain = math.sqrt(0.5)
        self.fromrgb = Convolution(3, inputs, 1) if is_first else nn.Identity()
        self.conv0 = Convolution(inputs, inputs)
        self.conv1 = Convolution(inputs, outputs, down=True, gain=gain)
        self.skip = Convolution(inputs, outputs, 1, down=True, gain=gain, plain=True)

    def forward(self, x):
        x = self.fromrgb(x)
        return self.conv1(self.conv0(x)) + self.skip(x)


class Epilogue(nn.Module):
    """Maps (B, C, 4, 4) -> logits (B, 1); the deviation within groups of the batch is a channel."""

    def __init__(self, channels, group):
        super().__init__()
        self.group = group
        self.conv = Convolution(channels + 1, channels)
        self.fc = FullyConnected(16 * channels, channels, activation=True)
        self.out = FullyConnected(channels, 1)

    def forward(self, x):
        group = min(self.group, x.shape[0])
        grouped = x.reshape(group, -1, *x.shape[1:])
        deviation = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        rows = deviation.repeat(group)[:, None, None, None].expand(-1, 1, 4, 4)
        x = self.conv(torch.cat([x, rows], 1))
        # Rows, columns, channels: the order in which ours flattens.
        return self.out(self.fc(x.permute(0, 2, 3, 1).flatten(1)))


class Discriminator(nn.Module):
    """Images (B, 3, resolution, resolution) -> logits (B, 1)."""

    def __init__(self, resolution, channel_base=32768, channel_max=512, group=4):
        super().__init__()
        sides = resolutions(resolution)
        channels = [channels_at(side, channel_base, channel_max) for side in sides]
        for index in reversed(range(1, len(sides))):
            block = DiscriminatorBlock(
                channels[index], channels[index - 1], sides[index] == resolution
            )
            self.add_module(f"b{sides[index]}", block)
        self.add_module("b4", Epilogue(channels[0], group))

    def forward(self, image):
        for block in self.children():
            image = block(image)
        return image


class GeneratorLoss(nn.Module):
    """z -> the loss of the generator's update, through a discriminator that stays."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator.requires_grad_(False)

    def forward(self, z):
        return F.softplus(-self.discriminator(self.generator(z))).mean()
