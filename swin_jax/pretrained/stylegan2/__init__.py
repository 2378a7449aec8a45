"""StyleGAN2's weights: rosinality's, NVIDIA's of PyTorch and of TensorFlow,
and back into the first two.
"""
