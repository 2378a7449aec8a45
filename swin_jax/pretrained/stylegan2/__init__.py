"""StyleGAN2's weights, from rosinality's files and NVIDIA's of PyTorch and TensorFlow,
and back to the first two.
"""
