"""One small kernel for every word of csrc/cuda/words, and what has to become of it in PTX."""

from __future__ import annotations

import re
from dataclasses import dataclass

STATE = "struct State { float x[512]; };"


@dataclass(frozen=True)
class Probe:
    """A kernel with `parameters` and `body`.

    Attributes:
        words: what of the vocabulary it calls.
        expected: its lines in ptx_trace, where ... stands for anything.
        text: patterns that its PTX has.
        sm90: needs sm_90a.
    """

    words: str
    parameters: str
    body: str
    expected: str = ""
    text: tuple[str, ...] = ()
    sm90: bool = False

    @property
    def parameter_names(self) -> list[str]:
        return re.findall(r"(\w+)(?:,|$)", self.parameters)

    @property
    def lines(self) -> list[str]:
        return self.expected.splitlines()


def vector(word: str, pointer: str, count: int, instruction: str) -> Probe:
    """A load of `count` words that go to `out` one by one."""
    kind = {1: "uint32_t", 2: "uint2", 4: "uint4"}[count]
    parts = ["v"] if count == 1 else [f"v.{axis}" for axis in "xyzw"[:count]]
    body = f"const auto v = gpu::{word}<{kind}>({pointer});"
    body += "".join(f" out[{i}] = {part};" for i, part in enumerate(parts))
    names = [f"r{i}" for i in range(count)]
    loaded = names[0] if count == 1 else "{" + ", ".join(names) + "}"
    suffix = "" if count == 1 else f".v{count}"
    return Probe(
        word,
        f"uint32_t* out, const void* {pointer}",
        body,
        f"{instruction}{suffix}.b32 {loaded}, [{pointer}]\n" + stores(names),
    )


def stores(values: list[str]) -> str:
    """out[i] = values[i]."""
    return "\n".join(f"[out{f'+{4 * i}' if i else ''}] = {value}" for i, value in enumerate(values))


def store(count: int) -> Probe:
    kind = {1: "uint32_t", 2: "uint2", 4: "uint4"}[count]
    names = ["a", "b", "c", "d"][:count]
    parameters = ", ".join(["void* p", *(f"uint32_t {name}" for name in names)])
    stored = names[0] if count == 1 else "{" + ", ".join(names) + "}"
    value = names[0] if count == 1 else f"make_{kind}({', '.join(names)})"
    suffix = "" if count == 1 else f".v{count}"
    return Probe(
        "store_vector_once",
        parameters,
        f"gpu::store_vector_once<{kind}>(p, {value});",
        f"st.global.cs{suffix}.b32 [p], {stored}",
    )


MEMORY = [
    Probe(
        "shared",
        "float* out",
        STATE + "auto& s = gpu::shared<State>(); s.x[threadIdx.x] = 1;"
        " __syncthreads(); out[0] = s.x[3];",
        "[add(...suffuse_shared_memory..., shl(%tid.x, 2))] = ...\n"
        "[out] = [...suffuse_shared_memory...+12]",
        text=(r"st\.shared\.", r"ld\.shared\."),
    ),
    Probe(
        "shared_address",
        "uint32_t* out, void* p",
        "out[0] = gpu::shared_address(p);",
        "[out] = p",
        text=(r"cvta\.to\.shared\.u64",),
    ),
    *(
        Probe(
            "load_vector store_vector",
            "void* out, const void* in",
            f"gpu::store_vector(out, gpu::load_vector<{kind}>(in));",
            "\n".join(f"[out{at}] = ...[in{at}]..." for at in ("", "+8")[: max(size // 8, 1)]),
            text=(rf"\bld\.global\.{form}\s", rf"\bst\.global\.{form}\s"),
        )
        for kind, size, form in (
            ("float", 4, r"[ubf]32"),
            ("uint2", 8, r"(v2\.[ubf]32|[ub]64)"),
            ("float4", 16, r"(v4\.[ubf]32|v2\.[ub]64)"),
        )
    ),
    *(
        vector("load_vector_once", "p", count, "ld.global.nc.L1::no_allocate")
        for count in (1, 2, 4)
    ),
    *(store(count) for count in (1, 2, 4)),
]

CONVERT = [
    Probe(
        "to_float",
        "float* out, uint16_t bits, float x",
        "out[0] = gpu::to_float(float16{bits}); out[1] = gpu::to_float(bfloat16{bits});"
        " out[2] = gpu::to_float(x);",
        "cvt.f32.f16 r0, bits\n[out] = r0\n[out+4] = shl(bits, 16)\n[out+8] = x",
    ),
    Probe(
        "from_float",
        "uint32_t* out, float x, float y",
        "out[0] = gpu::from_float<bfloat16>(x).bits; out[1] = gpu::from_float<float16>(y).bits;"
        " out[2] = __float_as_uint(gpu::from_float<float>(x));",
        "cvt.rn.bf16.f32 r0, x\ncvt.rn.f16.f32 r1, y\n[out] = r0\n[out+4] = r1\n[out+8] = x",
    ),
    Probe(
        "pack",
        "uint32_t* out, float low, float high",
        "out[0] = gpu::pack<bfloat16>(low, high); out[1] = gpu::pack<float16>(low, high);",
        "cvt.rn.bf16x2.f32 r0, high, low\ncvt.rn.f16x2.f32 r1, high, low\n[out] = r0\n[out+4] = r1",
    ),
    Probe(
        "unpack",
        "float* out, uint32_t pair",
        "const float2 h = gpu::unpack<float16>(pair), b = gpu::unpack<bfloat16>(pair);"
        " out[0] = h.x; out[1] = h.y; out[2] = b.x; out[3] = b.y;",
        "cvt.f32.f16 r0, pair\ncvt.f32.f16 r1, shr(pair, 16)\n"
        + stores(["r0", "r1", "shl(pair, 16)", "and(pair, -65536)"]),
    ),
    Probe(
        "to_tf32",
        "uint32_t* out, float x",
        "out[0] = gpu::to_tf32(x);",
        "cvt.rna.tf32.f32 r0, x\n[out] = r0",
    ),
]

MATH = [
    Probe(
        word, "float* out, float x", f"out[0] = gpu::{word}(x);", f"{instruction} r0, x\n[out] = r0"
    )
    for word, instruction in {
        "exp2_approx": "ex2.approx.ftz.f32",
        "log2_approx": "lg2.approx.ftz.f32",
        "reciprocal_approx": "rcp.approx.ftz.f32",
        "rsqrt_approx": "rsqrt.approx.ftz.f32",
        "tanh_approx": "tanh.approx.f32",
    }.items()
]

WARP = [
    Probe("lane", "uint32_t* out", "out[0] = gpu::lane();", "mov.u32 r0, %laneid\n[out] = r0"),
    Probe(
        "warp",
        "uint32_t* out",
        "out[0] = gpu::warp();",
        "[out] = shr(mad(...%ntid.x, %tid.x), 5)",
    ),
    Probe("opaque", "int* out, int x", "out[0] = gpu::opaque(x);", "[out] = x"),
    Probe(
        "elect_one",
        "uint32_t* out",
        "if (gpu::elect_one()) out[0] = 1;",
        "elect.sync _|p, 0xffffffff\nselp.b32 r0, 1, 0, p\n[out] = 1",
        sm90=True,
    ),
]


def load_matrix(count: int, transposed: bool) -> Probe:
    word = f"load_matrix_x{count}" + ("_transposed" if transposed else "")
    names = [f"r{i}" for i in range(count)]
    form = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    return Probe(
        word,
        "uint32_t* out, const void* row",
        f"uint32_t r[{count}]; gpu::{word}(r, row);"
        f" for (int i = 0; i < {count}; i++) out[i] = r[i];",
        f"{form} {{{', '.join(names)}}}, [row]\n" + stores(names),
    )


def mma(word: str, call: str, form: str) -> Probe:
    """a = in[0 .. 3], b = in[4, 5], d = in[6 .. 9]."""
    load = "uint32_t a[4], b[2]; float d[4];"
    load += " for (int i = 0; i < 4; i++) a[i] = in[i];"
    load += " for (int i = 0; i < 2; i++) b[i] = in[4 + i];"
    load += " for (int i = 0; i < 4; i++) d[i] = __uint_as_float(in[6 + i]);"
    return Probe(
        word,
        "float* out, const uint32_t* in",
        f"{load} gpu::{call}(d, a, b); for (int i = 0; i < 4; i++) out[i] = d[i];",
        f"mma.sync.aligned.{form} {{r0, r1, r2, r3}}, {{[in], [in+4], [in+8], [in+12]}},"
        " {[in+16], [in+20]}, {[in+24], [in+28], [in+32], [in+36]}\n"
        + stores(["r0", "r1", "r2", "r3"]),
    )


MMA = [
    *(load_matrix(count, transposed) for count in (1, 2, 4) for transposed in (False, True)),
    mma("mma_m16n8k16", "mma_m16n8k16<bfloat16>", "m16n8k16.row.col.f32.bf16.bf16.f32"),
    mma("mma_m16n8k16", "mma_m16n8k16<float16>", "m16n8k16.row.col.f32.f16.f16.f32"),
    mma("mma_m16n8k8_tf32", "mma_m16n8k8_tf32", "m16n8k8.row.col.f32.tf32.tf32.f32"),
]

COPY = [
    *(
        Probe(
            "copy_async",
            "void* shared, const void* global, bool inside",
            f"gpu::copy_async<{size}>(shared, global, inside);"
            f" gpu::copy_async<{size}>(shared, global);"
            f" gpu::copy_async<{size}>(shared, global, false);",
            f"{form} [shared], [global], {size}, selp(0, {size}, setp(inside, 0))\n"
            f"{form} [shared], [global], {size}, {size}\n"
            f"{form} [shared], [global], {size}, 0",
        )
        for size, form in (
            (4, "cp.async.ca.shared.global"),
            (8, "cp.async.ca.shared.global"),
            (16, "cp.async.cg.shared.global"),
        )
    ),
    Probe("copy_async_commit", "", "gpu::copy_async_commit();", "cp.async.commit_group"),
    Probe("copy_async_wait", "", "gpu::copy_async_wait<3>();", "cp.async.wait_group 3"),
]

SYNC = [
    Probe(
        "named_barrier_sync named_barrier_arrive",
        "int id, int threads",
        "gpu::named_barrier_sync(id, threads); gpu::named_barrier_arrive(id, threads);",
        "bar.sync id, threads\nbar.arrive id, threads",
    ),
    *(
        Probe(
            "reduce_add",
            f"{kind}* p, {kind} value",
            "gpu::reduce_add(p, value);",
            f"red.relaxed.gpu.global.add.{form} [p], value",
        )
        for kind, form in (
            ("float", "f32"),
            ("double", "f64"),
            ("int32_t", "s32"),
            ("uint32_t", "u32"),
            ("uint64_t", "u64"),
        )
    ),
    *(
        Probe(
            "load_acquire store_release",
            f"uint{bits}_t* out, uint{bits}_t* p, uint{bits}_t value",
            "out[0] = gpu::load_acquire(p); gpu::store_release(p, value);",
            f"ld.acquire.gpu.global.u{bits} r0, [p]\n[out] = r0\n"
            f"st.release.gpu.global.u{bits} [p], value",
        )
        for bits in (32, 64)
    ),
    *(
        Probe(
            "spin_until spin_until_ready",
            f"uint{bits}_t* out, uint{bits}_t* p, uint{bits}_t least",
            call,
            f"ld.acquire.gpu.global.u{bits} r0, [p]\n"
            f"ld.acquire.gpu.global.u{bits} r1, [p]\n[out] = r1",
            text=(rf"setp\.lt\.u{bits}",),
        )
        for bits in (32, 64)
        for call in (
            "out[0] = gpu::spin_until(p, least);",
            "out[0] = gpu::spin_until_ready(p, [=](auto flag) { return flag >= least; });",
        )
    ),
]

PROBES = [*MEMORY, *CONVERT, *MATH, *WARP, *MMA, *COPY, *SYNC]
