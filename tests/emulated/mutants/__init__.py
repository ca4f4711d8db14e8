"""Planted bugs: a kernel's own source with one text replaced must be caught as its entry says.

tests/emulated/mutants/<name>.py has a list MUTANTS for the kernels of tests/emulated/<name>.cpp.
test_mutants.py runs them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from emulated import build
from emulated.harness import SEEDS, CountersError, Emulator, KernelError

# Faster to compile; a mutant need not be fast to run. An entry may leave types out for it.
FLAGS = [*(flag for flag in build.KERNEL_FLAGS if flag != "-O2"), "-O1", "-w", "-DSUFFUSE_MUTANT"]
SITE = re.compile(r"^(csrc|tests)/[\w./-]+:\d+$")


class Mutant(NamedTuple):
    """One planted bug.

    Attributes:
        name: what is wrong, in a few words.
        library: of tests/emulated/<library>.cpp.
        file: whose text is replaced, below the root of the project.
        old, new: the text, which must occur exactly once, and what takes its place.
        case: runs kernels on the device it is given and checks their results; must pass with the
            text as it is.
        caught_by: regular expression for the kinds of findings, one of which is enough; "numbers"
            for a wrong result, "counters" for too much traffic.
        seeds: it must be caught under each of these.
    """

    name: str
    library: str
    file: str
    old: str
    new: str
    case: Callable[[Emulator], None]
    caught_by: str
    seeds: tuple[int, ...] = SEEDS


def mutated(mutant: Mutant) -> Path:
    """The library with the bug in it: a folder with the changed file comes first on the include path."""
    text = (build.ROOT / mutant.file).read_text()
    count = text.count(mutant.old)
    assert count == 1, f"{mutant.name}: the text to replace occurs {count} times in {mutant.file}"
    assert mutant.new != mutant.old, f"{mutant.name}: nothing changes"
    text = text.replace(mutant.old, mutant.new)
    root = build.BUILD / "mutants" / build.digest(mutant.file, text)
    changed = root / mutant.file
    with build.locked(root.name):
        if not changed.exists():
            changed.parent.mkdir(parents=True, exist_ok=True)
            changed.write_text(text)
    source = build.kernel_source(mutant.library)
    kernels = build.compile_object(source, [*FLAGS, *build.include_flags(root / "csrc")])
    assert changed in build.dependencies(kernels), f"{source.name} does not include {mutant.file}"
    return build.link(mutant.library, [kernels, *build.engine_objects()])


def symptoms(mutant: Mutant, device: Emulator) -> tuple[set[str], str]:
    """What the case saw, and its message."""
    try:
        mutant.case(device)
    except KernelError as error:
        for finding in error.report.findings:
            assert finding.sites and all(SITE.match(site) for site in finding.sites), str(finding)
        return {finding.kind for finding in error.report.findings}, str(error)
    except CountersError as error:
        return {"counters"}, str(error)
    except AssertionError as error:
        return {"numbers"}, str(error)
    return set(), "nothing was found"


def check(mutant: Mutant) -> str:
    """Runs one mutant under all its seeds; the message of the first.

    Raises:
        AssertionError: not caught as its entry says.
    """
    library = mutated(mutant)
    messages = []
    for seed in mutant.seeds:
        device = Emulator(mutant.library, seed=seed, library=library)
        found, message = symptoms(mutant, device)
        device.release()  # there are hundreds of libraries, and none is ever closed
        messages.append(message)
        caught = any(re.fullmatch(mutant.caught_by, kind) for kind in found)
        assert caught, (
            f"{mutant.name}, seed {seed}: expected {mutant.caught_by}, got {sorted(found)}\n{message}"
        )
    return messages[0]
