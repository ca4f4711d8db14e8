"""The tests of the emulator again, on a real CUDA device: nothing needs to be rebuilt for it."""
