"""The probes of the words that need sm_90a."""

from __future__ import annotations

from vocabulary_probes import Probe, stores

WGMMA_SIZES = (8, 16, 32, 64, 96, 128, 192, 256)


def hopper(words: str, parameters: str, body: str, expected: str, *text: str) -> Probe:
    return Probe(words, parameters, body, expected, text, sm90=True)


BARRIERS = [
    hopper(
        "mbarrier_init mbarrier_invalidate",
        "uint64_t* barrier, int count",
        "gpu::mbarrier_init(barrier, count); gpu::mbarrier_invalidate(barrier);",
        "mbarrier.init.shared::cta.b64 [barrier], count\nmbarrier.inval.shared::cta.b64 [barrier]",
    ),
    hopper(
        "fence_mbarrier_init fence_async",
        "",
        "gpu::fence_mbarrier_init(); gpu::fence_async();",
        "fence.mbarrier_init.release.cluster\nfence.proxy.async...",
    ),
    hopper(
        "mbarrier_arrive mbarrier_arrive_expect",
        "uint64_t* barrier, int bytes",
        "gpu::mbarrier_arrive(barrier); gpu::mbarrier_arrive_expect(barrier, bytes);",
        "mbarrier.arrive.release.cta.shared::cta.b64 _, [barrier]\n"
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [barrier], bytes",
    ),
    hopper(
        "mbarrier_test",
        "uint32_t* out, uint64_t* barrier, uint32_t parity",
        "out[0] = gpu::mbarrier_test(barrier, parity);",
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 complete, [barrier], parity\n"
        "selp.u32 r0, 1, 0, complete\n[out] = selp(1, 0, setp(r0, 0))",
    ),
    hopper(
        "mbarrier_wait",
        "uint64_t* barrier, uint32_t parity",
        "gpu::mbarrier_wait(barrier, parity);",
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 complete, [barrier], parity\n"
        "selp.u32 r0, 1, 0, complete",
        r"setp\.eq\.s32\s+%p\d+, %r\d+, 0;\s+@%p\d+ bra",
    ),
]


def tensor_copies(rank: int) -> list[Probe]:
    names = [f"c{i}" for i in range(rank)]
    integers = ", ".join(f"int {name}" for name in names)
    coordinates = ", ".join(names)
    map_parameter = "const __grid_constant__ gpu::TensorMap map"
    return [
        hopper(
            "tensor_load",
            f"void* shared, {map_parameter}, {integers}, uint64_t* barrier",
            f"gpu::tensor_load(shared, map, {coordinates}, barrier);",
            f"cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
            f" [shared], [map, {{{coordinates}}}], [barrier]",
        ),
        hopper(
            "tensor_store",
            f"const void* shared, {map_parameter}, {integers}",
            f"gpu::tensor_store(map, {coordinates}, shared);",
            f"cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group"
            f" [map, {{{coordinates}}}], [shared]",
        ),
    ]


COPIES = [
    *(probe for rank in (2, 3, 4) for probe in tensor_copies(rank)),
    hopper(
        "prefetch_tensor_map",
        "const __grid_constant__ gpu::TensorMap map",
        "gpu::prefetch_tensor_map(map);",
        "prefetch.tensormap [map]",
    ),
    hopper(
        "bulk_commit bulk_wait bulk_wait_read",
        "",
        "gpu::bulk_commit(); gpu::bulk_wait<2>(); gpu::bulk_wait_read<1>();",
        "cp.async.bulk.commit_group\ncp.async.bulk.wait_group 2\ncp.async.bulk.wait_group.read 1",
    ),
]


def product(n: int, arguments: str, form: str, majors: str, a_registers: bool) -> Probe:
    """a from `in` or as a descriptor, d from `in` from element 4 on."""
    count = n // 2
    body = f"float d[{count}]; uint32_t r[4];"
    body += ' _Pragma("unroll") for (int i = 0; i < 4; i++) r[i] = in[i];'
    body += f' _Pragma("unroll") for (int i = 0; i < {count}; i++)'
    body += " d[i] = __uint_as_float(in[4 + i]);"
    body += f" gpu::wgmma<{n}, {arguments}>(d, {'r' if a_registers else 'a'}, b, p != 0);"
    body += f' _Pragma("unroll") for (int i = 0; i < {count}; i++) out[i] = d[i];'
    names = [f"r{i}" for i in range(count)]
    operand = "{[in], [in+4], [in+8], [in+12]}" if a_registers else "a"
    return hopper(
        "wgmma",
        "float* out, const uint32_t* in, uint64_t a, uint64_t b, int p",
        body,
        f"setp.ne.b32 accumulate, ...setp(p, 0)..., 0\n"
        f"wgmma.mma_async.sync.aligned.m64n{n}{form} {{{', '.join(names)}}}, {operand}, b,"
        f" accumulate, 1, 1{majors}\n" + stores(names),
    )


MN = "gpu::Major::mn"
PRODUCTS = [
    *(product(n, "bfloat16", "k16.f32.bf16.bf16", ", 0, 0", False) for n in WGMMA_SIZES),
    *(product(n, "bfloat16", "k16.f32.bf16.bf16", ", 0", True) for n in WGMMA_SIZES),
    product(32, "float16", "k16.f32.f16.f16", ", 0, 0", False),
    product(32, "float16", "k16.f32.f16.f16", ", 0", True),
    product(16, "float", "k8.f32.tf32.tf32", "", False),
    product(16, "float", "k8.f32.tf32.tf32", "", True),
    product(8, f"bfloat16, {MN}", "k16.f32.bf16.bf16", ", 1, 0", False),
    product(8, f"bfloat16, gpu::Major::k, {MN}", "k16.f32.bf16.bf16", ", 0, 1", False),
    product(8, f"float16, {MN}, {MN}", "k16.f32.f16.f16", ", 1, 1", False),
    product(8, f"float16, {MN}", "k16.f32.f16.f16", ", 1", True),
    hopper(
        "wgmma_fence wgmma_commit wgmma_wait",
        "float* out, float x, float y",
        "float d[2] = {x, y}; gpu::wgmma_fence(d); gpu::wgmma_commit(); gpu::wgmma_wait<3>(d);"
        " out[0] = d[0]; out[1] = d[1];",
        "wgmma.fence.sync.aligned\nwgmma.commit_group.sync.aligned\n"
        "wgmma.wait_group.sync.aligned 3\n[out] = x\n[out+4] = y",
    ),
    hopper(
        "wgmma_descriptor",
        "uint64_t* out, const void* start",
        "out[0] = gpu::wgmma_descriptor(start, gpu::Swizzle::bytes128, 0, 1024);",
        "[out] = ...and(shr(start, 4), 16383)...",
    ),
    hopper(
        "set_max_registers_up set_max_registers_down",
        "",
        "gpu::set_max_registers_down<40>(); gpu::set_max_registers_up<232>();",
        "setmaxnreg.dec.sync.aligned.u32 40\nsetmaxnreg.inc.sync.aligned.u32 232",
    ),
]

HOPPER_PROBES = [*BARRIERS, *COPIES, *PRODUCTS]
