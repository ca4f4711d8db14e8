"""What the inline PTX of a kernel is given and where its results go, read from the PTX of nvcc.

Inside a kernel every register is followed back to a parameter, to memory or to the inline
instruction that it came from, whose results are r0, r1 ... in the order in which they appear:

    cvt.rn.bf16x2.f32 r0, high, low
    [out+4] = r0
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Instructions without a result. Of all others the first operand is one, unless it is an address.
NO_RESULT = ("st", "red", "bar", "cp", "fence", "prefetch", "setmaxnreg")
COPIES = ("mov", "cvt", "cvta")
REGISTER = re.compile(r"%(?!laneid)\w+")


def kernel_body(ptx: str, kernel: str) -> str:
    start = ptx.index("{", ptx.index(f".entry {kernel}("))
    end = ptx.find(".entry", start)
    return ptx[start : end if end >= 0 else len(ptx)]


def split_operands(text: str) -> list[str]:
    """At the commas that are not inside of braces or brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def registers(operand: str) -> list[str]:
    return REGISTER.findall(operand)


def element_bytes(opcode: str) -> int:
    return int(opcode[-2:]) // 8


class Trace:
    """Follows the registers of one kernel through its text."""

    def __init__(self, kernel: str, parameters: Sequence[str]) -> None:
        self.parameters = {f"{kernel}_param_{i}": name for i, name in enumerate(parameters)}
        self.values: dict[str, str] = {}
        self.lines: list[str] = []
        self.results = 0

    def named(self, operand: str) -> str:
        """An operand with what its registers hold."""
        text = REGISTER.sub(lambda found: self.values.get(found[0], found[0]), operand)
        return self.parameters.get(text, text)

    def element(self, address: str, index: int, size: int) -> str:
        """Element `index` of the vector at an address such as [out+4]."""
        base, offset = re.fullmatch(r"\[([^+]*)(?:\+(\d+))?\]", address).groups()  # type: ignore[union-attr]
        offset = int(offset or 0) + index * size
        return f"[{base}+{offset}]" if offset else f"[{base}]"

    def inline(self, opcode: str, operands: list[str]) -> None:
        texts = [self.named(operand) for operand in operands]
        with_result = opcode.split(".")[0] not in NO_RESULT
        if with_result and operands and operands[0][0] != "[":
            for register in registers(operands[0]):
                self.values[register] = f"r{self.results}"
                self.results += 1
            texts[0] = self.named(operands[0])
        self.lines.append(f"{opcode} {', '.join(texts)}".strip())

    def compiled(self, opcode: str, operands: list[str]) -> None:
        kind = opcode.split(".")[0]
        if kind in ("bra", "ret", "trap", "bar"):
            return
        if kind == "st":
            address, size = self.named(operands[0]), element_bytes(opcode)
            for i, register in enumerate(split_operands(operands[1].strip("{}"))):
                self.lines.append(f"{self.element(address, i, size)} = {self.named(register)}")
        elif opcode.startswith("ld.param"):
            self.values[operands[0]] = self.parameters[operands[1].strip("[]").split("+")[0]]
        elif kind == "ld":
            address, size = self.named(operands[1]), element_bytes(opcode)
            for i, register in enumerate(registers(operands[0])):
                self.values[register] = self.element(address, i, size)
        elif kind in COPIES and len(operands) == 2:
            self.values[operands[0]] = self.named(operands[1])
        elif opcode == "add.s64" and operands[2].isdigit():
            sum_of = self.element(f"[{self.named(operands[1])}]", int(operands[2]), 1)
            self.values[operands[0]] = sum_of.strip("[]")
        else:
            arguments = ", ".join(self.named(operand) for operand in operands[1:])
            self.values[operands[0]] = f"{kind}({arguments})"


def trace(ptx: str, kernel: str, parameters: Sequence[str]) -> list[str]:
    """The inline instructions of a kernel, in order, and the stores to its parameters."""
    state = Trace(kernel, parameters)
    inline = False
    for line in kernel_body(ptx, kernel).splitlines()[1:]:
        if line.strip().startswith("//"):
            inline = "begin inline asm" in line
            continue
        for statement in line.split(";"):
            text = re.sub(r"^(\{\s+|@!?%?\w+\s+|[{}]$)", "", statement.strip())
            if not text or text[0] in ".$}{" or text.endswith(":"):
                continue
            opcode, _, rest = text.partition(" ")
            opcode, _, more = opcode.partition("\t")
            operands = split_operands(f"{more} {rest}")
            (state.inline if inline else state.compiled)(opcode, operands)
    return state.lines
