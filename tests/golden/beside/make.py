"""Writes clip.npz: what open_clip and transformers compute for configs of their own.

    python make.py        (open_clip 3.3.0, transformers 5.24.0 and torch 2.13 wrote the committed file)

A case is a config as it lies beside weights, the names and shapes of its arrays, and the features of one image and two
texts, of unit length; `cases` is JSON. The arrays themselves come from `arrays`, which the tests call too.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
VISION = dict(layers=2, width=24, head_width=8, patch_size=8, image_size=16, mlp_ratio=2.5)
TEXT = dict(context_length=6, vocab_size=30, width=16, heads=4, layers=2)
OPEN = dict(embed_dim=12, vision_cfg=VISION, text_cfg=TEXT)
VISION_HF = dict(
    hidden_size=24, num_attention_heads=3, num_hidden_layers=2, patch_size=8, image_size=16, intermediate_size=60
)
TEXT_HF = dict(
    hidden_size=16,
    num_attention_heads=4,
    num_hidden_layers=2,
    max_position_embeddings=6,
    vocab_size=30,
    intermediate_size=64,
    eos_token_id=29,
)


def changed(config, **changes):
    return config | {key: config[key] | value if isinstance(value, dict) else value for key, value in changes.items()}


OPEN_CLIP = {
    "heads": OPEN,
    "other heads": changed(OPEN, vision_cfg=dict(head_width=12), text_cfg=dict(heads=2)),
    "quick_gelu": changed(OPEN, quick_gelu=True),
    "heads by default": dict(
        embed_dim=12,
        vision_cfg={k: v for k, v in VISION.items() if k != "head_width"} | dict(width=64),
        text_cfg={k: v for k, v in TEXT.items() if k != "heads"},
    ),
    "what changes nothing": changed(
        OPEN,
        init_logit_bias=-10,
        init_logit_scale=2.3,
        nonscalar_logit_scale=True,
        custom_text=True,
        vision_cfg=dict(final_ln_after_pool=True, patch_dropout=0.5, act_kwargs={"approximate": "none"}),
        text_cfg=dict(final_ln_after_pool=True, pad_id=3, eos_id=5, norm_kwargs={"eps": 1e-5}),
    ),
    "a resnet": changed(
        OPEN, quick_gelu=True, vision_cfg=dict(layers=[1, 1, 1, 1], width=4, head_width=16, image_size=32)
    ),
}
TRANSFORMERS = {
    "heads": dict(projection_dim=12, vision_config=VISION_HF, text_config=TEXT_HF),
    "gelu": dict(
        projection_dim=12,
        vision_config=VISION_HF | dict(num_attention_heads=6, hidden_act="gelu"),
        text_config=TEXT_HF | dict(num_attention_heads=2, hidden_act="gelu", eos_token_id=2),
    ),
    "heads by default": dict(
        projection_dim=12,
        vision_config={k: v for k, v in VISION_HF.items() if k != "num_attention_heads"},
        text_config={k: v for k, v in TEXT_HF.items() if k != "num_attention_heads"},
    ),
}


def arrays(shapes):
    """{name: float32 array} of these shapes, the same every time."""
    rng = np.random.default_rng(0)
    found = {}
    for name, shape in sorted(shapes.items()):
        spread = 0.1 if name.endswith(("running_var", "logit_scale")) else 0.4
        found[name] = np.abs(rng.normal(1, spread, shape)) if spread == 0.1 else rng.normal(0, spread, shape)
        found[name] = np.asarray(found[name], np.float32)
    return found


def inputs(size):
    """An image (1, size, size, 3) and ids (2, 6) that end with the highest one."""
    image = np.random.default_rng(1).normal(size=(1, size, size, 3)).astype(np.float32)
    return image, np.array([[28, 3, 7, 29, 0, 0], [28, 11, 5, 4, 9, 29]])


def main():
    import open_clip
    import torch
    import transformers

    found, features = {}, {}
    for kind, cases in (("open_clip", OPEN_CLIP), ("transformers", TRANSFORMERS)):
        for case, config in cases.items():
            if kind == "open_clip":
                made = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
                model = made(**{key: value for key, value in config.items() if key != "custom_text"})
                file, written = "open_clip_config.json", dict(model_cfg=config)
            else:
                model = transformers.CLIPModel(transformers.CLIPConfig(**config))
                file, written = "config.json", dict(config, model_type="clip", architectures=["CLIPModel"])
            state = model.state_dict()
            shapes = {name: list(value.shape) for name, value in state.items() if value.is_floating_point()}
            weights = {name: torch.from_numpy(value) for name, value in arrays(shapes).items()}
            model.load_state_dict(weights, strict=False)
            image, ids = inputs(32 if case == "a resnet" else 16)
            pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
            model = model.eval()
            with torch.no_grad():
                if kind == "open_clip":
                    seen, read = model.encode_image(pixels), model.encode_text(torch.from_numpy(ids))
                else:
                    out = model(pixel_values=pixels, input_ids=torch.from_numpy(ids))
                    seen, read = out.image_embeds, out.text_embeds
            features[f"{kind}/{case}/image"], features[f"{kind}/{case}/text"] = (
                (x / x.norm(dim=-1, keepdim=True)).numpy() for x in (seen, read)
            )
            found[f"{kind}/{case}"] = dict(file=file, config=written, shapes=shapes)
    np.savez_compressed(HERE / "clip.npz", cases=json.dumps(found), **features)


if __name__ == "__main__":
    main()
