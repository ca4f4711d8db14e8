"""Solvers: each turns a process and a time grid into a plan of coefficients."""

from suffuse.diffusion.solvers.adams import IPNDM, LMS, PNDM
from suffuse.diffusion.solvers.base import Grid, Node, Solver
from suffuse.diffusion.solvers.consistency import TCD, Consistency
from suffuse.diffusion.solvers.ddim import DDIM, DDPM, RePaint
from suffuse.diffusion.solvers.dpm_solver import (
    DEIS,
    CogVideoXDPM,
    DPMSolver,
    DPMSolverPP2M,
    ExponentialAdams,
)
from suffuse.diffusion.solvers.plan import Plan, Stage
from suffuse.diffusion.solvers.runge_kutta import DPM2, Churn, Euler, EulerAncestral, Heun
from suffuse.diffusion.solvers.singlestep import DPMSolverGrouped, DPMSolverSDE, DPMSolverSinglestep
from suffuse.diffusion.solvers.stochastic import Langevin, PredictorCorrector, ReverseSDE
from suffuse.diffusion.solvers.unipc import SASolver, UniPC

_ALL: tuple[type[Solver], ...] = (
    Euler, EulerAncestral, Heun, DPM2, LMS, IPNDM, PNDM, DDIM, DDPM, DPMSolverPP2M, DPMSolver,
    DPMSolverSinglestep, DPMSolverGrouped, DPMSolverSDE, CogVideoXDPM, DEIS, ExponentialAdams, UniPC,
    SASolver, Consistency, TCD, ReverseSDE, PredictorCorrector, Langevin, RePaint,
)  # fmt: skip
SOLVERS: dict[str, type[Solver]] = {solver.name: solver for solver in _ALL}

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM2",
    "IPNDM",
    "LMS",
    "PNDM",
    "SOLVERS",
    "TCD",
    "Churn",
    "CogVideoXDPM",
    "Consistency",
    "DPMSolver",
    "DPMSolverGrouped",
    "DPMSolverPP2M",
    "DPMSolverSDE",
    "DPMSolverSinglestep",
    "Euler",
    "EulerAncestral",
    "ExponentialAdams",
    "Grid",
    "Heun",
    "Langevin",
    "Node",
    "Plan",
    "PredictorCorrector",
    "RePaint",
    "ReverseSDE",
    "SASolver",
    "Solver",
    "Stage",
    "UniPC",
]
