"""The words that kernels are written in: both halves offer the same, each is documented, and each
compiles to the PTX that it says, with its operands in their places."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from cubin_build import ROOT, nvcc
from ptx_trace import kernel_body, trace
from test_static import need
from vocabulary_probes import PROBES as SM80_PROBES
from vocabulary_probes_hopper import HOPPER_PROBES

CUDA = ROOT / "csrc" / "cuda"
ARCHS = ("sm_80", "sm_90a")
PROBES = [*SM80_PROBES, *HOPPER_PROBES]
# Of the device half alone: makes operands of instructions.
NOT_WORDS = {"shared_address", "pin_registers"}


class Word(NamedTuple):
    name: str
    template: str  # "" where it is none
    result: str
    parameters: str
    documented: bool


def without_hidden_parts(text: str) -> str:
    """Without full specialisations, preprocessor lines and the namespace of helpers."""
    text = re.sub(r"namespace host \{.*?\}  // namespace host\n", "", text, flags=re.DOTALL)
    text = re.sub(r"template <>\n", "template <> ", text)
    return re.sub(r"^#.*(\\\n.*)*", "", text, flags=re.MULTILINE)


def parameter_list(text: str, start: int) -> str:
    """From an opening parenthesis to its partner."""
    depth = 0
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return " ".join(text[start + 1 : end].split())
    raise ValueError(f"no end of {text[start : start + 40]}")


def without_where(text: str) -> str:
    """Without what tells the emulator where a word stands, and without lists of registers: where
    the device half has a pack, the host half has some with a default, for the place comes last."""
    text = re.sub(
        r"(, )?(SUFFUSE_WHERE|class\.\.\. Registers|Registers&\.\.\. registers)", "", text
    )
    text = re.sub(r"(, )?(class )?\w+&? ?\w* = host::[Nn]othing", "", text)
    return "" if text == "template <>" else text.replace("<, ", "<")


def words_of(text: str) -> list[Word]:
    """The functions of a header, in order; those of one paragraph share its comment."""
    text = without_hidden_parts(text)
    found: list[Word] = []
    pattern = re.compile(
        r"^(template <[^;{]*?>)?\s*^SUFFUSE_DEVICE (.*?[ &*])(\w+)\(", re.MULTILINE
    )
    for match in pattern.finditer(text):
        template, result, name = " ".join((match[1] or "").split()), match[2].strip(), match[3]
        paragraph = text[: match.start()].rpartition("\n\n")[2]
        documented = paragraph.startswith("//") or any(word.name == name for word in found)
        parameters = parameter_list(text, match.end() - 1)
        template, parameters = without_where(template), without_where(parameters)
        word = Word(name, template, result, parameters, documented)
        if word[:4] not in [known[:4] for known in found]:
            found.append(word)
    return found


@functools.cache
def device_words() -> list[Word]:
    files = sorted((CUDA / "words").glob("*.cuh"))
    texts = [file.read_text() for file in files if not file.stem.endswith("-inl")]
    words = [word for text in texts for word in words_of(text)]
    return [word for word in words if word.name not in NOT_WORDS]


@functools.cache
def host_words() -> list[Word]:
    files = sorted((CUDA / "host").glob("*.h"))
    texts = [file.read_text() for file in files]
    return [word for text in texts if "namespace suffuse::gpu {" in text for word in words_of(text)]


def test_both_halves_offer_the_same_words() -> None:
    device = {word[:4] for word in device_words()}
    host = {word[:4] for word in host_words()}
    assert len(device) > 60
    assert device - host == set(), "only nvcc knows them"
    assert host - device == set(), "only the emulator knows them"


def test_every_word_is_documented() -> None:
    missing = {word.name for word in device_words() if not word.documented}
    assert missing == set()


def test_umbrellas_include_all() -> None:
    """Each header with words, by the umbrella or by another header that it includes."""
    for umbrella, half in (("vocab.cuh", "words"), ("vocab_host.h", "host")):
        files = [file for file in (CUDA / half).iterdir() if "SUFFUSE_DEVICE" in file.read_text()]
        included = "\n".join(file.read_text() for file in [CUDA / umbrella, *files])
        for file in files:
            assert f'#include "cuda/{half}/{file.name}"' in included


def test_every_word_has_a_probe() -> None:
    probed = {word for probe in PROBES for word in probe.words.split()}
    assert {word.name for word in device_words()} - probed == set()


def source(indices: Iterable[int]) -> str:
    kernels = "\n".join(
        f'extern "C" __global__ void probe_{i}({PROBES[i].parameters}) {{ {PROBES[i].body} }}'
        for i in indices
    )
    return f'#include "cuda/vocab.cuh"\nusing namespace suffuse;\n{kernels}\n'


def run_nvcc(folder: Path, text: str, arch: str, output: str, *flags: str) -> None:
    need(nvcc)
    (folder / "probes.cu").write_text(text)
    command = [nvcc()[0], "-std=c++17", "-O3", f"-arch={arch}", *flags, f"-I{ROOT / 'csrc'}"]
    done = subprocess.run(
        [*command, output, "probes.cu"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=ARCHS)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Architecture and PTX of all probes; ptxas takes them too, which checks what nvcc does not."""
    arch = request.param
    folder: Path = tmp_path_factory.mktemp(arch)
    indices = [i for i, probe in enumerate(PROBES) if arch == "sm_90a" or not probe.sm90]
    for output in ("-ptx", "-cubin"):
        run_nvcc(folder, source(indices), arch, output)
    return arch, (folder / "probes.ptx").read_text()


def matches(line: str, expected: str) -> bool:
    return re.fullmatch(re.escape(expected).replace(r"\.\.\.", ".*"), line) is not None


def complaints(index: int, ptx: str) -> list[str]:
    """What a probe lacks, with what it has."""
    probe, name = PROBES[index], f"probe_{index}"
    lines = trace(ptx, name, probe.parameter_names) if probe.lines else []
    missing = [want for want in probe.lines if not any(matches(line, want) for line in lines)]
    missing += [text for text in probe.text if not re.search(text, kernel_body(ptx, name))]
    if len(lines) != len(probe.lines):
        missing.append(f"{len(probe.lines)} lines")
    return [f"{probe.words}: no {want} in", *lines] if (want := "; ".join(missing)) else []


@pytest.mark.parametrize(
    "index", range(len(PROBES)), ids=lambda i: f"{i}-{PROBES[i].words.split()[0]}"
)
def test_ptx_of_a_word(index: int, compiled: tuple[str, str]) -> None:
    arch, ptx = compiled
    if PROBES[index].sm90 and arch != "sm_90a":
        assert f"probe_{index}(" not in ptx
    else:
        assert complaints(index, ptx) == []


def test_shared_memory_is_aligned(compiled: tuple[str, str]) -> None:
    _, ptx = compiled
    assert re.search(r"\.extern \.shared \.align 1024 \.b8 \w*suffuse_shared_memory", ptx)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_host_half_supplies_what_cuda_has(arch: str, tmp_path: Path) -> None:
    """The functions of CUDA C++ that tests/emulated/test_cuda_functions.py checks are CUDA's."""
    text = '#include "emulated/cuda_functions.cuh"\n'
    run_nvcc(tmp_path, text, arch, "-cubin", f"-I{ROOT / 'tests'}")


# In a header of csrc/cuda/words: a text, what takes its place, the words that are then wrong.
PLANTED = [
    ("convert", ': "f"(high), "f"(low)', ': "f"(low), "f"(high)', {"pack"}),
    ("convert", "uint16_t>(pair >> 16)}", "uint16_t>(pair)}", {"unpack"}),
    ("convert", "cvt.rn.f16.f32", "cvt.rz.f16.f32", {"from_float"}),
    ("convert", "cvt.rna", "cvt.rn", {"to_tf32"}),
    ("math", "ex2.approx", "lg2.approx", {"exp2_approx"}),
    ("memory", "cs.v4.b32 [%0], {%1, %2", "cs.v4.b32 [%0], {%2, %1", {"store_vector_once"}),
    ("memory", "v2.b32 {%0, %1}, [%2]", "v2.b32 {%1, %0}, [%2]", {"load_vector_once"}),
    ("mma", "x4.trans", "x4", {"load_matrix_x4_transposed"}),
    ("mma", '"r"(a[1]), "r"(a[2])', '"r"(a[2]), "r"(a[1])', {"mma_m16n8k16", "mma_m16n8k8_tf32"}),
    ("mma", "f32.f16.f16.f32", "f32.bf16.bf16.f32", {"mma_m16n8k16"}),
    ("mma", '"=r"(r[0]), "=r"(r[1])', '"=r"(r[1]), "=r"(r[0])', {"load_matrix_x2 load_matrix_x4"}),
    ("copy", "inside ? 16 : 0", "inside ? 0 : 16", {"copy_async"}),
    ("copy", "cp.async.cg", "cp.async.ca", {"copy_async"}),
    ("copy", "wait_group %0", "wait_group 0", {"copy_async_wait"}),
    ("sync", "bar.sync %0, %1", "bar.sync %1, %0", {"named_barrier_sync named_barrier_arrive"}),
    ("sync", "red.relaxed.gpu.global.add.u64", "red.relaxed.gpu.global.max.u64", {"reduce_add"}),
    ("sync", "ld.acquire.gpu.global.u32", "ld.relaxed.gpu.global.u32", {"load_acquire"}),
    ("sync", "return value >= least", "return value > least", {"spin_until"}),
    ("mbarrier", "complete, [%1], %2", "complete, [%2], %1", {"mbarrier_test", "mbarrier_wait"}),
    ("tma", "[%0], [%1, {%2, %3}], [%4]", "[%0], [%1, {%3, %2}], [%4]", {"tensor_load"}),
    ("tma", "wait_group.read", "wait_group", {"bulk_wait_read"}),
    ("wgmma_sizes-inl", ', accumulate, 1, 1"', ', accumulate, 1, -1"', {"wgmma"}),
    ("wgmma_sizes-inl", 'i3 ", " i4', 'i4 ", " i3', {"wgmma"}),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted[0]}: {planted[2]}")
def test_a_planted_error_is_found(planted: tuple[str, str, str, set[str]], tmp_path: Path) -> None:
    """What the tests above rest on."""
    header, old, new, wrong = planted
    changed = tmp_path / "cuda" / "words" / f"{header}.cuh"
    changed.parent.mkdir(parents=True)
    text = (CUDA / "words" / changed.name).read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    words = {word.name for word in words_of(text)} | {"wgmma"}
    probed = [i for i, probe in enumerate(PROBES) if words & set(probe.words.split())]
    run_nvcc(tmp_path, source(probed), "sm_90a", "-ptx", f"-I{tmp_path}")
    ptx = (tmp_path / "probes.ptx").read_text()
    found = {word for i in probed if complaints(i, ptx) for word in PROBES[i].words.split()}
    assert {word for words in wrong for word in words.split()} <= found
