"""The loop of a kernel's machine code that its tensor cores run in, and the way that is usual through it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

TENSOR = ("HMMA", "HGMMA", "IMMA", "DMMA")
COPY = re.compile(r"LDGSTS\b.*\.128|UTMALDG|UBLKCP")
LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_.a-z]*)\s*([^;]*);")


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str  # with its modifiers
    operands: str
    conditional: bool = False  # behind a predicate, or a branch with one

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def is_product(self) -> bool:
        return self.name in TENSOR

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = re.search(r"0x([0-9a-f]+)\s*$", self.operands) if self.name == "BRA" else None
        return int(found[1], 16) if found else None


def parse(sass: str) -> dict[str, list[Instruction]]:
    """The instructions of each function."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in sass.splitlines():
        if "Function : " in line:
            current = functions.setdefault(line.split("Function : ")[1].strip(), [])
        elif found := LINE.search(line):
            address, predicate, opcode, operands = found.groups()
            # A branch may have its predicate, or what the warp agrees on, among its operands.
            plain = re.fullmatch(r"\s*(0x[0-9a-f]+)?\s*", operands) is not None
            conditional = predicate is not None or (opcode.startswith("BRA") and not plain)
            current.append(Instruction(int(address, 16), opcode, operands, conditional))
    return functions


Block = tuple[Instruction, ...]
Graph = dict[int, list[int]]  # address of a block -> those that may follow


def blocks_of(code: list[Instruction]) -> tuple[dict[int, Block], Graph]:
    """Instructions between branches, by the address of the first, and what may follow each."""
    starts = {code[0].address} if code else set()
    for i, instruction in enumerate(code):
        if instruction.target is not None:
            starts.add(instruction.target)
        if instruction.name in ("BRA", "EXIT", "RET") and i + 1 < len(code):
            starts.add(code[i + 1].address)
    blocks: dict[int, Block] = {}
    current: list[Instruction] = []
    for instruction in code:
        if instruction.address in starts and current:
            blocks[current[0].address] = tuple(current)
            current = []
        current.append(instruction)
    if current:
        blocks[current[0].address] = tuple(current)
    addresses = sorted(blocks)
    after = dict(itertools.pairwise(addresses))
    graph: Graph = {}
    for address, block in blocks.items():
        last = block[-1]
        follow = [last.target] if last.target in blocks else []
        ends = last.name in ("BRA", "EXIT", "RET") and not last.conditional
        if not ends and address in after:
            follow.append(after[address])
        graph[address] = [x for x in follow if x is not None]
    return blocks, graph


def components(nodes: set[int], graph: Graph) -> list[set[int]]:
    """Strongly connected ones (Tarjan 1972), each before those that lead to it."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    found: list[set[int]] = []
    for root in sorted(nodes):
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, follow = work[-1]
            advanced = False
            for other in follow:
                if other not in nodes:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    work.append((other, iter(graph[other])))
                    advanced = True
                    break
                if other in stack:
                    low[node] = min(low[node], index[other])
            if advanced:
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == index[node]:
                place = stack.index(node)
                found.append(set(stack[place:]))
                del stack[place:]
    return found


def main_loop(blocks: dict[int, Block], graph: Graph) -> tuple[int, set[int]]:
    """The entry and the blocks of the innermost loop with most of the products.

    Raises:
        ValueError: no loop has products.
    """

    def products(nodes: set[int]) -> int:
        return sum(x.is_product for node in nodes for x in blocks[node])

    nodes, entry, loop = set(blocks), -1, set[int]()
    while True:
        cycles = [c for c in components(nodes, graph) if len(c) > 1 or min(c) in graph[min(c)]]
        inner = max(cycles, key=products, default=set())
        if not inner or products(inner) == 0 or 2 * products(inner) < products(loop):
            break
        loop = inner
        outside = {x for n in blocks if n not in loop for x in graph[n] if x in loop}
        entry = min(outside, default=min(loop))
        nodes = loop - {entry}
    if not loop:
        raise ValueError("no loop has products of matrices")
    return entry, loop


Weight = tuple[int, int, int]


def weight(block: Block) -> Weight:
    """All products and all wide copies are made; of what branches leave out, the least is."""
    copies = sum(COPY.match(x.opcode) is not None for x in block)
    return sum(x.is_product for x in block), copies, -len(block)


def usual_way(code: list[Instruction]) -> list[Instruction]:
    """One pass of the main loop, without what a tile at an edge or a rare case needs more.

    Loops inside that make no products are passed once.
    """
    blocks, graph = blocks_of(code)
    entry, loop = main_loop(blocks, graph)
    inside = {node: [x for x in graph[node] if x in loop and x != entry] for node in loop}
    best: dict[int, tuple[Weight, list[Instruction]]] = {}
    where: dict[int, int] = {}
    for number, group in enumerate(components(loop, inside)):  # the last blocks come first
        own = [x for node in sorted(group) for x in blocks[node]]
        where.update(dict.fromkeys(group, number))
        onward = {where[x] for node in group for x in inside[node] if x not in group}
        closes = any(entry in graph[node] for node in group)
        ways = [best[x] for x in onward if x in best]
        if closes:
            ways.append(((0, 0, 0), []))
        if not ways:
            continue  # leaves the loop
        ahead, rest = max(ways, key=lambda way: way[0])
        mine = weight(tuple(own))
        best[number] = (mine[0] + ahead[0], mine[1] + ahead[1], mine[2] + ahead[2]), own + rest
    return best[where[entry]][1]
