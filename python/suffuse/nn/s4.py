"""The layer of S4 (Gu, Goel and Re 2022, "Efficiently Modeling Long Sequences with Structured State Spaces")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn import hippo
from suffuse.ops import fft_conv, s4_kernel
from suffuse.ops._s4_kernel_system import bilinear_matrix, truncated_C

_CHUNK = 64  # steps that a forward pass with a cache takes at once


@dataclass
class S4Cache:
    """What one step hands to the next. It belongs to the parameters as they were when it was made.

    Attributes:
        state: complex [B, D, N / 2], changed in place.
        C: the output weights without truncation, complex [D, N / 2].
    """

    state: Tensor
    C: Tensor


class S4(nn.Module):
    """State-space model of each channel, GELU, gated projection: [B, T, D] -> [B, T, D].

    The state matrix is diagonal plus low-rank, discretised by the bilinear transform. A forward pass
    is a convolution, O(T log T), and a step a recurrence, O(N); both give the same.

    Args:
        d_model: D.
        d_state: real states a channel, N; even.
        l_max: the length for which the output weights are learned (C (1 - Abar^l_max), as in
            algorithm 1). Up to it a forward pass costs the same; longer ones work, but power a dense
            N x N matrix for each channel.
        measure: HiPPO matrix to start from: "legs", "legt", "lagt" or "fout".
        rank: of the low-rank part; None: what the measure needs.
        dt_min, dt_max: between which the steps start, log-uniformly.
        mix: whether GELU and the gated projection across channels follow.

    Raises:
        ValueError: an unknown measure, a rank that is too small for it, an odd d_state, l_max below 1.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        l_max: int = 1024,
        measure: str = "legs",
        rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        mix: bool = True,
    ) -> None:
        super().__init__()
        if l_max < 1:
            raise ValueError(f"S4: l_max: expected at least 1, got {l_max}")
        self.d_model, self.d_state, self.l_max = d_model, d_state, l_max
        rank = (2 if measure == "legt" else 1) if rank is None else rank
        w, P, B, _ = hippo.nplr(measure, d_state, rank)
        steps = math.log(dt_max / dt_min) * torch.rand(d_model) + math.log(dt_min)
        self.log_dt = nn.Parameter(steps)
        self.log_decay = nn.Parameter((-w.real).clamp(min=1e-4).log().float().repeat(d_model, 1))
        self.frequency = nn.Parameter(w.imag.float().repeat(d_model, 1))
        self.P = nn.Parameter(_parts(P[:, None].repeat(1, d_model, 1)))
        self.B = nn.Parameter(_parts(B.repeat(d_model, 1)))
        C = torch.randn(d_model, d_state // 2, dtype=torch.complex128)
        A, P, dt = w.repeat(d_model, 1), P[:, None].repeat(1, d_model, 1), steps.double().exp()
        self.C = nn.Parameter(_parts(truncated_C(A, P, C[None], dt, None, l_max)[0]))
        self.D = nn.Parameter(torch.ones(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model) if mix else None

    def forward(self, x: Tensor, cache: S4Cache | None = None) -> Tensor:
        """All steps at once.

        Args:
            x: [B, T, D].
            cache: goes on from it, in chunks, and leaves the last state in it (which is data: no
                gradient); None: from 0, as one convolution.
        """
        u = x.mT
        if cache is None:
            A, B, C, P, dt = self._system()
            kernel = s4_kernel(A, B, C, dt, x.shape[1], P=P, truncation=self.l_max)
            y = fft_conv(u, kernel, self.D.to(kernel.dtype))
        else:
            y = self._chunks(u, cache) + self.D[:, None] * u
        return self._mix(y.mT.to(x.dtype))

    def step(self, x: Tensor, cache: S4Cache) -> Tensor:
        """One step [B, D] -> [B, D]; the cache moves on in place. The states are data: no gradient."""
        A, B, _, P, dt = self._system()
        dt, state = dt[:, None], cache.state
        # (1 - dt A / 2)^-1 ((1 + dt A / 2) state + dt B x), the inverse by Woodbury's identity
        ahead = state + dt / 2 * (A * state - (P * _project(P, state)).sum(-3))
        ahead = (ahead + dt * B * x[..., None]) / (1 - dt / 2 * A)
        low = P / (1 - dt / 2 * A)
        inner = 2 * torch.einsum("rdn,sdn->drs", P.conj(), low).real
        inner = inner + torch.diag_embed((2 / dt).expand(-1, len(P)))
        weights = torch.linalg.solve(inner, _project(P, ahead)[..., 0].transpose(-1, -2)[..., None])
        ahead = ahead - torch.einsum("rdn,bdr->bdn", low, weights[..., 0].to(low.dtype))
        y = 2 * (cache.C * ahead).sum(-1).real + self.D * x
        with torch.no_grad():
            cache.state.copy_(ahead)
        return self._mix(y.to(x.dtype))

    @torch.no_grad()
    def allocate_cache(self, batch_size: int) -> S4Cache:
        """A cache of zeros for B = batch_size sequences; takes O(D N^3 log l_max) to make."""
        A, _, C, P, dt = self._system()
        row = _row(C)[:, None]
        step = bilinear_matrix(A, P, dt)
        one = torch.eye(self.d_state, dtype=step.dtype, device=step.device)
        whole = one - torch.linalg.matrix_power(step, self.l_max)
        C = _from_column(torch.linalg.solve(whole, row, left=False)[:, 0]).conj()
        return S4Cache(A.new_zeros(batch_size, *A.shape), C)

    def _system(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """A, B, C [D, N / 2], P [rank, D, N / 2] complex, and dt [D]."""
        wide = torch.promote_types(self.C.dtype, torch.float32)
        A = torch.complex(-self.log_decay.to(wide).exp(), self.frequency.to(wide))
        B, C, P = (torch.view_as_complex(t.to(wide)) for t in (self.B, self.C, self.P))
        return A, B, C, P, self.log_dt.to(wide).exp()

    def _chunks(self, u: Tensor, cache: S4Cache) -> Tensor:
        """The outputs [B, D, T] of inputs behind the cache, whose state moves on."""
        A, B, _, P, dt = self._system()
        one_step = bilinear_matrix(A, P, dt)  # [D, N, N], of real and imaginary parts
        one = torch.eye(self.d_state, dtype=one_step.dtype, device=one_step.device)
        # (1 - dt A / 2)^-1 is (1 + Abar) / 2
        entry = ((one + one_step) / 2 @ (dt[:, None] * _column(B))[..., None])[..., 0]
        entries, exits = [entry], [(2 * _row(cache.C)[:, None] @ one_step)[:, 0]]
        for _ in range(min(_CHUNK, u.shape[-1]) - 1):
            entries.append((one_step @ entries[-1][..., None])[..., 0])
            exits.append((exits[-1][:, None] @ one_step)[:, 0])
        inputs, outputs = torch.stack(entries, -1), torch.stack(exits, -2)
        kernel = torch.einsum("dn,dnk->dk", 2 * _row(cache.C), inputs)
        state, results = _column(cache.state), []
        for part in u.to(one_step.dtype).split(_CHUNK, -1):
            size = part.shape[-1]
            before = torch.einsum("dkn,bdn->bdk", outputs[:, :size], state)
            results.append(before + fft_conv(part, kernel[:, :size]))
            ahead = torch.linalg.matrix_power(one_step, size)
            state = torch.einsum("dmn,bdn->bdm", ahead, state) + torch.einsum(
                "dnk,bdk->bdn", inputs[..., :size].flip(-1), part
            )
        with torch.no_grad():
            cache.state.copy_(_from_column(state))
        return torch.cat(results, -1) if results else torch.zeros_like(u)

    def _mix(self, y: Tensor) -> Tensor:
        return y if self.out_proj is None else F.glu(self.out_proj(F.gelu(y)), -1)


def _parts(values: Tensor) -> Tensor:
    return torch.view_as_real(values.resolve_conj()).float().contiguous()


def _project(P: Tensor, state: Tensor) -> Tensor:
    """P* state of both conjugates, which is real: [B, rank, D, 1]."""
    return 2 * (P.conj() * state[:, None]).sum(-1, keepdim=True).real


def _column(values: Tensor) -> Tensor:
    """Real and imaginary parts of states, one behind the other."""
    return torch.cat([values.real, values.imag], -1)


def _from_column(values: Tensor) -> Tensor:
    return torch.complex(*values.chunk(2, -1))


def _row(C: Tensor) -> Tensor:
    """The row whose product with a column is Re(C state)."""
    return torch.cat([C.real, -C.imag], -1)
