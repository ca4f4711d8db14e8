"""Every CUDA kernel's own source, executed on the CPU by tests/emulator and compared with the references."""
