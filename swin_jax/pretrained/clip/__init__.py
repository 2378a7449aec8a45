"""Weights of CLIP in the layouts of OpenAI, open_clip and transformers."""
