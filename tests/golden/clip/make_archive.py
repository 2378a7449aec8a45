"""Writes the TorchScript archive beside it as OpenAI publishes its weights: traced, in half precision.

    python make_archive.py        (torch 2.13 wrote the committed file; reading it needs no PyTorch)

The modules have the names and shapes of a tiny CLIP with a ResNet, the three numbers that OpenAI's archives hold, and
nothing of its computation. `tiny_archive.npz` holds what the archive must be read as.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
EMBED, WIDTH, TEXT, VOCAB, CONTEXT, SIDE = 6, 2, 8, 20, 5, 1


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2)
        self.ln_1 = nn.LayerNorm(width)
        linear = OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        self.mlp = nn.Sequential(linear)
        self.ln_2 = nn.LayerNorm(width)


class Bottleneck(nn.Module):
    def __init__(self, before, planes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        parts = {
            "-1": nn.AvgPool2d(2),
            "0": nn.Conv2d(before, 4 * planes, 1, bias=False),
            "1": nn.BatchNorm2d(4 * planes),
        }
        self.downsample = nn.Sequential(OrderedDict(parts))


class AttentionPool(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(SIDE * SIDE + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, EMBED)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        half = WIDTH // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, WIDTH, 3, bias=False), nn.BatchNorm2d(WIDTH)
        before = WIDTH
        for stage in range(4):
            setattr(self, f"layer{stage + 1}", nn.Sequential(Bottleneck(before, WIDTH * 2**stage)))
            before = 4 * WIDTH * 2**stage
        self.attnpool = AttentionPool(before)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.resblocks = nn.Sequential(Block(TEXT), Block(TEXT))


class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = ResNet()
        self.transformer = Transformer()
        self.token_embedding = nn.Embedding(VOCAB, TEXT)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, TEXT))
        self.ln_final = nn.LayerNorm(TEXT)
        self.text_projection = nn.Parameter(torch.randn(TEXT, EMBED))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        for name, number in (("input_resolution", 32 * SIDE), ("context_length", CONTEXT), ("vocab_size", VOCAB)):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, x):
        return x * self.logit_scale


def to_half(module):
    """OpenAI's choice: what multiplies is in half precision, norms, embeddings and positions are not."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        module.half()
    if isinstance(module, nn.MultiheadAttention):
        module.half()
    if isinstance(module, CLIP):
        module.text_projection.data = module.text_projection.data.half()


def main():
    torch.manual_seed(0)
    model = CLIP().eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer))
    model.apply(to_half)
    traced = torch.jit.trace(model, torch.zeros(1))
    traced.save(str(HERE / "tiny_archive.pt"))
    np.savez_compressed(HERE / "tiny_archive.npz", **{n: v.numpy() for n, v in traced.state_dict().items()})


if __name__ == "__main__":
    main()
