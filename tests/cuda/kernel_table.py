"""The table tests/cuda/kernels.md: every kernel's registers and instructions as they should be.

    python tests/cuda/kernel_table.py [source ...]

rewrites it, or the parts of some sources, from what nvcc makes now, and prints the difference for review.
Its notes, the lines below each part, are kept.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cubin_build
import cubin_read
from cubin_read import Kernel

TABLE = Path(__file__).resolve().parent / "kernels.md"
ORDER = [
    *("HGMMA", "HMMA", "IMMA", "DMMA", "LDSM", "STSM"),
    *("LDGSTS", "UTMALDG", "UTMASTG", "UBLKCP", "SYNCS", "USETMAXREG"),
    *("BAR", "SHFL", "REDUX", "MUFU", "ATOM", "ATOMS", "RED"),
    *("LDG", "STG", "LDS", "STS", "LD", "ST", "LDL", "STL"),
]
INTRODUCTION = """\
# Kernels as nvcc compiles them

Written by `python tests/cuda/kernel_table.py`, compared by `tests/cuda/test_static.py`; nvcc {release}.
Threads are those of `__launch_bounds__`. Registers are a ceiling, in steps of 8 as the hardware hands
them out. Instructions are exact, as they stand in the machine code; numbers after a load or store are
the bits that a thread moves. `traps`: made of words that this architecture lacks. No kernel uses local
memory. Notes below a table say why something is unusual; they are written by hand and kept.
"""
TRAPS = "traps"
SEPARATOR = " / "
HEADER = ["kernel", "arch", "threads", "registers", "instructions"]
NOTE = re.compile(r"- `([^`]+)`(?: (sm_\w+))?: (\S.*)")


@dataclass
class Row:
    threads: int
    registers: int  # 0: traps
    counts: dict[str, int]


@dataclass
class Table:
    release: str = ""
    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)  # source, kernel, arch
    notes: dict[str, list[str]] = field(default_factory=dict)  # of each source


def by_kind(word: str) -> tuple[int, int, str]:
    name, *modifiers = word.split(".")
    width = -int(modifiers[0]) if modifiers and modifiers[0].isdigit() else 0
    return ORDER.index(name), width if name in cubin_read.WIDTHED else 0, word


def row_of(kernel: Kernel) -> Row:
    if kernel.traps:
        return Row(kernel.threads, 0, {})
    return Row(kernel.threads, -(-kernel.registers // 8) * 8, dict(kernel.counts))


def measured(kernels: list[Kernel]) -> Table:
    """One row for each kernel."""
    rows = {(k.source, k.name, k.arch): row_of(k) for k in kernels}
    if len(rows) != len(kernels):
        raise ValueError("two kernels of one source have the same short name")
    return Table(cubin_build.nvcc()[1], rows)


def show_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in sorted(counts, key=by_kind))


def show_kernel(name: str, rows: dict[str, Row]) -> list[str]:
    """The lines of a kernel: one for the architectures that differ in no more than registers."""
    alike: dict[str, list[str]] = {}
    for arch, row in rows.items():
        instructions = show_counts(row.counts) if row.registers else TRAPS
        alike.setdefault(f"{row.threads} | {instructions}", []).append(arch)
    lines = []
    for text, archs in alike.items():
        threads, instructions = text.split(" | ")
        registers = SEPARATOR.join(str(rows[arch].registers) for arch in archs)
        cells = [f"`{name}`", SEPARATOR.join(archs), threads, registers, instructions]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def show(table: Table) -> str:
    lines = [INTRODUCTION.format(release=table.release)]
    sources: dict[str, dict[str, dict[str, Row]]] = {}
    for (source, name, arch), row in sorted(table.rows.items()):
        sources.setdefault(source, {}).setdefault(name, {})[arch] = row
    for source, kernels in sources.items():
        lines += [f"## {source}", "", f"| {' | '.join(HEADER)} |", "|---|---|---:|---:|---|"]
        for name, rows in kernels.items():
            lines += show_kernel(name, rows)
        notes = table.notes.get(source, [])
        lines += ["", *([*notes, ""] if notes else [])]
    return "\n".join(lines).rstrip("\n") + "\n"


def read_counts(instructions: str) -> dict[str, int]:
    if instructions in ("", TRAPS):
        return {}
    items = (item.split(" ") for item in instructions.split(", "))
    return {word: int(number) for number, word in items}


def read(text: str) -> Table:
    release = re.search(r"nvcc (\d+\.\d+)\.", text)
    table = Table(release[1] if release else "")
    source = ""
    for line in text.splitlines():
        if line.startswith("## "):
            source = line[3:].strip()
        elif line.startswith("| `"):
            name, archs, threads, registers, instructions = (
                cell.strip() for cell in line.strip("|").split("|")
            )
            counts = read_counts(instructions)
            pairs = zip(archs.split(SEPARATOR), registers.split(SEPARATOR), strict=True)
            for arch, number in pairs:
                row = Row(int(threads), int(number), dict(counts))
                table.rows[source, name.strip("`"), arch] = row
        elif line.startswith("- "):
            table.notes.setdefault(source, []).append(line)
    return table


def difference(expected: Row, found: Row) -> list[str]:
    """What is not as the table says."""
    if (expected.registers == 0) != (found.registers == 0):
        return ["traps, and should not" if found.registers == 0 else "should trap, and does not"]
    changes = []
    if found.threads != expected.threads:
        changes.append(f"threads {expected.threads} -> {found.threads}")
    if found.registers > expected.registers:
        changes.append(f"registers {expected.registers} -> {found.registers}")
    for word in sorted({*expected.counts, *found.counts}, key=by_kind):
        before, now = expected.counts.get(word, 0), found.counts.get(word, 0)
        if before != now:
            changes.append(f"{word} {before} -> {now}")
    return changes


def compare(expected: Table, found: Table) -> list[str]:
    """One line for each row that is missing, extra or changed."""
    lines = []
    for key in sorted({*expected.rows, *found.rows}):
        where = "{}: {} {}".format(*key)
        if key not in found.rows:
            lines.append(f"{where}: in the table, but no longer compiled")
        elif key not in expected.rows:
            lines.append(f"{where}: not in the table")
        elif changes := difference(expected.rows[key], found.rows[key]):
            lines.append(f"{where}: {'; '.join(changes)}")
    return lines


def has_note(table: Table, kernel: Kernel) -> bool:
    for line in table.notes.get(kernel.source, []):
        note = NOTE.fullmatch(line)
        if note and note[1] in (kernel.name, kernel.family) and note[2] in (None, kernel.arch):
            return True
    return False


def part_of(table: Table, sources: list[str]) -> Table:
    rows = {key: row for key, row in table.rows.items() if key[0] in sources}
    notes = {source: table.notes[source] for source in table.notes if source in sources}
    return Table(table.release, rows, notes)


def main(wanted: list[str]) -> int:
    """Sources that do not compile keep their part of the table."""
    old = read(TABLE.read_text()) if TABLE.exists() else Table()
    known = cubin_build.source_names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"no such source: {', '.join(unknown)}; there are {', '.join(known)}")
        return 1
    new = part_of(old, known)
    new.release = cubin_build.nvcc()[1]
    built = cubin_build.compile_all(wanted or known, cubin_build.product_archs())
    failures = [text for text in built.values() if isinstance(text, str)]
    for name, cubins in built.items():
        if isinstance(cubins, list):
            kept = {key: row for key, row in new.rows.items() if key[0] != name}
            new.rows = {**kept, **measured(cubin_read.read_all(cubins)).rows}
    TABLE.write_text(show(new))
    print("\n".join([*compare(old, new), *failures]) or "nothing changed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
