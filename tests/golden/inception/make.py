"""Records the case of this folder: features of the package pytorch-fid, on weights that golden.py generates.

pip install pytorch-fid==0.3.0 && python tests/golden/inception/make.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from pytorch_fid import inception

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
import golden  # noqa: E402

KEY, SHAPE = "input:inception_fid", (37, 53, 3)
# Name, part that is stored, what it is: of each block of pytorch-fid.
OUTPUTS = (
    ("first_pool", "[:, ::8, ::12, ::12]", "after the first max pool (batch, 64, 73, 73)"),
    ("second_pool", "[:, ::16, ::6, ::6]", "after the second max pool (batch, 192, 35, 35)"),
    ("before_the_last_blocks", "[:, ::32, ::4, ::4]", "after Mixed_6e (batch, 768, 17, 17)"),
    ("features", "[:, :]", "after the average pool (batch, 2048)"),
)


def generated() -> tuple[torch.nn.Module, dict]:
    """The network with generated weights, and their shapes."""
    load, inception.load_state_dict_from_url = torch.nn.Module.load_state_dict, lambda *args, **kwargs: {}
    torch.nn.Module.load_state_dict = lambda self, state_dict: None  # instead of the download
    whole = inception.fid_inception_v3()
    torch.nn.Module.load_state_dict = load
    keys = {name: tuple(x.shape) for name, x in whole.state_dict().items() if "num_batches_tracked" not in name}
    weights = {name: torch.from_numpy(np.array(golden.tensor(name, shape))) for name, shape in keys.items()}
    whole.load_state_dict(weights, strict=False)
    inception.fid_inception_v3 = lambda: whole
    return inception.InceptionV3(output_blocks=(0, 1, 2, 3)).eval(), keys


def main() -> None:
    network, keys = generated()
    image = torch.from_numpy(golden.picture(KEY, *SHAPE)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        single = [x.numpy() for x in network(image)]
        double = [x.numpy() for x in network.double()(image.double())]
    outputs, arrays = {}, {}
    for (name, index, what), found, exact in zip(OUTPUTS, single, double):
        found, exact = (x[:, :, 0, 0] if name == "features" else x for x in (found, exact))
        arrays[f"output.{name}"] = golden.take(found, index).copy()
        gap = golden.relative_error(golden.take(found, index), golden.take(exact, index))
        outputs[name] = dict(shape=[*found.shape], index=index, what=what, float64_gap=float(f"{gap:.2g}"))
    manifest = dict(
        case="inception_fid",
        family="inception",
        source="pytorch-fid 0.3.0, inception.py, InceptionV3(output_blocks=(0, 1, 2, 3)), on torchvision 0.28.0",
        config=dict(resize_input=True, normalize_input=True, use_fid_inception=True),
        note="The picture is divided by 255; the network resizes it to 299 x 299 (bilinear, align_corners=False) and "
        "scales it to -1..1. BatchNorm epsilon 1e-3.",
        rules="default",
        inputs=dict(image={"from": "picture", "key": KEY, "shape": [*SHAPE], "what": "uint8 (height, width, 3)"}),
        outputs=outputs,
        first_values={
            name: [float(f"{x:.7g}") for x in golden.tensor(name, shape).ravel()[:3]]
            for name, shape in [*keys.items()][:3]
        },
    )
    np.savez_compressed(FOLDER / "inception_fid.npz", **arrays)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in keys.items())
    text = json.dumps(manifest, indent=1)[:-2] + f',\n "keys": {{\n{lines}\n }}\n}}\n'
    (FOLDER / "inception_fid.json").write_text(text)


if __name__ == "__main__":
    main()
