"""Solvers, one a file: each turns a process and a time grid into a plan of coefficients."""

from suffuse.diffusion.solvers.base import Node, Plan, Solver, Stage
from suffuse.diffusion.solvers.ddim import DDIM
from suffuse.diffusion.solvers.dpmpp_2m import DPMSolverPP2M
from suffuse.diffusion.solvers.euler import Euler
from suffuse.diffusion.solvers.heun import Heun

SOLVERS: dict[str, type[Solver]] = {s.name: s for s in (Euler, Heun, DPMSolverPP2M, DDIM)}

__all__ = ["DDIM", "SOLVERS", "DPMSolverPP2M", "Euler", "Heun", "Node", "Plan", "Solver", "Stage"]
