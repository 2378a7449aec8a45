"""The same networks in PyTorch: timm's, torchvision's and open_clip's, StyleGAN2 restated in
`stylegan2_reference`, and PyTorch's own attention. Each is built from the arguments of ours, and
run as it is written or through `torch.compile`.
"""

import contextlib
import importlib
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.speed.networks import LEARNING_RATE, WEIGHT_DECAY, Arrays, Program
from swin_jax.core.errors import UserError, install

# The package of each family beside torch, by the name in which it is imported.
PACKAGES = {
    "attention": "torch",
    "swin": "timm",
    "video_swin": "torchvision",
    "clip": "open_clip",
    "stylegan2": "torch",
}
VERSIONS = ("torch", "timm", "torchvision", "open_clip_torch")
# Operators that torchvision describes when it is imported, and that its builds for GPUs do not
# have beside a torch without them.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
    "int pooled_width, int sampling_ratio, bool aligned) -> Tensor",
)
_libraries = []  # the declarations end with them


class Reference(NamedTuple):
    """A network of a reference.

    Attributes:
        forward: Module of the forward.
        trained: Module of the training step.
        inputs: Tensors that both are called with.
        loss: The outputs of `trained` -> the loss.
        trains: True if a step updates the parameters; False if it is their gradient alone.
    """

    forward: Any
    trained: Any
    inputs: tuple[Any, ...]
    loss: Callable[[Any], Any]
    trains: bool = True


def check_installed(family: str) -> None:
    """Raises UserError if the reference of a family cannot be imported."""
    for package in dict.fromkeys(("torch", PACKAGES[family])):
        try:
            _import(package)
        except (ImportError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{package} cannot be imported: {install('peers')} ({reason})"
            ) from None


def _import(package: str) -> Any:
    """Imports a package."""
    if package != "torch":
        _declare_operators()
    return importlib.import_module(package)


def _declare_operators() -> None:
    """Declares operators of torchvision that its build lacks, so that it can be imported."""
    import torch

    if _libraries or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        _libraries.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in _OPERATORS:
            _libraries[0].define(operator)
    except ImportError:
        pass  # timm does without it


@contextlib.contextmanager
def prepared(threads: int) -> Iterator[None]:
    """A block in which torch has so many threads, and its compiler none of its earlier results.

    Products in float32 have the precision that JAX has on a GPU. What all compilations share is
    made first, so that the first row's does not count it.
    """
    torch = _import("torch")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        with contextlib.suppress(Exception):  # rows say why there is no compiler
            torch.compile(torch.sin)(torch.ones(64))
        yield


def sees_gpu() -> bool:
    """True if torch is installed and sees a GPU."""
    try:
        return _import("torch").cuda.is_available()
    except (ImportError, RuntimeError):
        return False


def make_reference(
    family: str, fields: Mapping[str, Any], inputs: Arrays, device: str
) -> Reference:
    """A network of a reference with random weights.

    Args:
        family: Family of the row.
        fields: Arguments of our network.
        inputs: Inputs of `networks.make_inputs`.
        device: 'cpu' or 'gpu'.
    """
    torch = _import("torch")
    place = "cuda" if device == "gpu" else "cpu"
    tensors = {name: _tensor(name, array).to(place) for name, array in inputs.items()}
    _import(PACKAGES[family])
    return _FAMILIES[family](torch, fields, tensors, place)


def _tensor(name: str, array: np.ndarray):
    """An array as a tensor, with channels before pixels."""
    import torch

    if name in ("image", "video"):
        array = np.moveaxis(array, -1, 1)
    whole = np.int64 if array.dtype == np.int32 else array.dtype
    return torch.from_numpy(np.ascontiguousarray(array, whole))


def _attention(torch, fields, tensors, place: str) -> Reference:
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            heads, tokens = fields["heads"], fields["tokens"]
            self.qkv = torch.nn.Parameter(tensors["qkv"])
            self.bias = torch.nn.Parameter(torch.zeros(1, heads, tokens, tokens))

        def forward(self):
            q, k, v = self.qkv.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(q, k, v, attn_mask=self.bias.to(q.dtype), scale=1.0).transpose(1, 2)

    def loss(out):
        return (out.float() * tensors["gradient"].flatten(0, 1)).sum()

    module = Attention().to(place)
    return Reference(module, module, (), loss, trains=False)


def _classifier(torch, module, pixels, label, place: str) -> Reference:
    module = module.to(place)

    def loss(logits):
        return torch.nn.functional.cross_entropy(logits.float(), label)

    return Reference(module, module, (pixels,), loss)


def _swin(torch, fields: Mapping[str, Any], tensors: Mapping[str, Any], place: str) -> Reference:
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    names = ("window_size", "embed_dim", "depths", "num_heads", "num_classes", "drop_path_rate")
    version = SwinTransformerV2 if fields.get("cosine_attention") else SwinTransformer
    module = version(
        img_size=fields["image_size"], **{name: fields[name] for name in names if name in fields}
    )
    return _classifier(torch, module, tensors["image"], tensors["label"], place)


def _video_swin(torch, fields, tensors, place: str) -> Reference:
    from torchvision.models.video import SwinTransformer3d

    lists = {name: list(fields[name]) for name in ("window_size", "depths", "num_heads")}
    module = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=fields["embed_dim"],
        num_classes=fields["num_classes"],
        stochastic_depth_prob=fields["drop_path_rate"],
        dropout=0.0,
        **lists,
    )
    return _classifier(torch, module, tensors["video"], tensors["label"], place)


def _clip(torch, fields, tensors, place: str) -> Reference:
    from open_clip.model import CLIP

    vision = {name: fields[f"vision_{name}"] for name in ("layers", "width")}
    vision |= {name: fields[name] for name in ("image_size", "patch_size")}
    text = {name: fields[f"text_{name}"] for name in ("layers", "width")}
    text |= {name: fields[name] for name in ("context_length", "vocab_size")}
    module = CLIP(
        fields["embed_dim"],
        vision,
        text | dict(heads=fields["text_width"] // 64),
        quick_gelu=fields["act"] == "quick_gelu",
    ).to(place)
    rows = torch.arange(len(tensors["text"]), device=place)

    def loss(outputs):
        image, text, scale = outputs
        logits = scale.float() * image.float() @ text.float().T
        entropy = torch.nn.functional.cross_entropy
        return (entropy(logits, rows) + entropy(logits.T, rows)) / 2

    return Reference(module, module, (tensors["image"], tensors["text"]), loss)


def _stylegan2(torch, fields, tensors, place: str) -> Reference:
    from experiments.benchmarks.speed import stylegan2_reference as stylegan2

    sizes = ("resolution", "channel_base", "channel_max")
    generator = stylegan2.Generator(**fields)
    judge = stylegan2.Discriminator(**{name: fields[name] for name in sizes if name in fields})
    module = stylegan2.GeneratorLoss(generator, judge).to(place, memory_format=torch.channels_last)
    return Reference(module.generator, module, (tensors["z"],), lambda loss: loss)


_FAMILIES = {
    "attention": _attention,
    "swin": _swin,
    "video_swin": _video_swin,
    "clip": _clip,
    "stylegan2": _stylegan2,
}


def parameters(reference: Reference) -> int:
    """The number of parameters of the forward."""
    return sum(leaf.numel() for leaf in reference.forward.parameters())


def forward_program(reference: Reference, dtype: str, is_compiled: bool) -> Program:
    """The forward of a reference, whose parameters become `dtype`."""
    torch = _import("torch")
    kind = getattr(torch, dtype)
    module = reference.forward.eval().to(kind)
    inputs = [x.to(kind) if x.is_floating_point() else x for x in reference.inputs]
    called = torch.compile(module, dynamic=False) if is_compiled else module

    def run():
        with torch.no_grad():
            return called(*inputs)

    return _program(run)


def step_program(reference: Reference, dtype: str, is_compiled: bool) -> Program:
    """The training step of a reference, whose parameters stay float32; or the gradient, if it
    does not train.
    """
    torch = _import("torch")
    module = reference.trained.train()
    called = torch.compile(module, dynamic=False) if is_compiled else module
    trained = [leaf for leaf in module.parameters() if leaf.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    kind, place = getattr(torch, dtype), trained[0].device.type

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(place, kind, enabled=dtype != "float32"):
            loss = reference.loss(called(*reference.inputs))
        loss.backward()
        if reference.trains:
            optimizer.step()
        return loss

    return _program(run)


def _program(run: Callable[[], Any]) -> Program:
    """A program that has run once, which compiles it."""
    torch = _import("torch")

    def wait(_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    began = time.perf_counter()
    wait(run())
    return Program(run, wait, time.perf_counter() - began)


def release() -> None:
    """Gives back what compiled programs of earlier rows hold."""
    torch = _import("torch")
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measured_peak(dtype: str, side: int, device: str, repeats: int = 5) -> float:
    """FLOP/s of the fastest of several products of two square matrices; 0 without torch."""
    try:
        torch = _import("torch")
    except (ImportError, RuntimeError):
        return 0.0
    place = "cuda" if device == "gpu" else "cpu"
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype), device=place)
    program, times = _program(lambda: matrix @ matrix), []
    for _ in range(repeats):
        began = time.perf_counter()
        program.wait(program.run())
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def versions() -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
