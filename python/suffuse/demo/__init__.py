"""The demo: train on handwritten digits, sample with several solvers, judge, draw."""

from suffuse.demo.run import DEFAULT_STEPS, DemoOptions, run_demo

__all__ = ["DEFAULT_STEPS", "DemoOptions", "run_demo"]
