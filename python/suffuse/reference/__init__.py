"""The ops' plain formulas in PyTorch: slow, differentiable, exact in float64. What kernels are tested against."""
