"""Models compiled by torch.compile, the fastest runtime on NVIDIA's GPUs."""
