"""Weights of Video Swin, and of image Swins inflated to it."""
