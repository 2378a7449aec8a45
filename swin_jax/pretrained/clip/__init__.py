"""CLIP weights in the layouts of OpenAI, open_clip and transformers."""
