"""What can be broken in one line of Python: the mistakes that a test suite is asked to notice.

Never broken, because they only speak: docstrings, annotations and type aliases, `__all__`, imports, decorators, the
texts of errors and of log lines (nothing inside a `raise` or an f-string, no string with a space), what stands under
`if TYPE_CHECKING` or `if __name__ == ...`.

Left out as well, because no test of this suite can see the difference:

- numbers that are seconds (constants and parameters with a name like TIMEOUT or `pause`, arguments of `sleep`, `wait`
  and `join`), and what a line that reads a clock compares or counts from: no test may depend on speed;
- constants that only say how much is done at once (CHUNK, ROWS, THREADS, BUCKET): the result is the same by design;
- what only a GPU runs: the body of an `if` on CUDA, and constants on a line that speaks of it;
- `daemon=`, names of threads, `strict=` of `zip`, and descriptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from tests.mutation.breaks import Break

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
}
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
SECONDS = re.compile(r"timeout|pause|seconds|interval|grace|patience|period|poll|linger|limit_s|deadline", re.I)
AT_ONCE = re.compile(r"CHUNK|THREADS|(?<!MAX)_ROWS$|^BUCKET(_BYTES)?$|^MEMORY_BYTES$")
CLOCK = re.compile(r"monotonic\(|perf_counter|time\.time\(|\bdeadline\b")
GPU = re.compile(r"cuda|nccl|gpu", re.I)
SPEAKING = re.compile(r"^(print|log|say|tell|note|echo|secho|warn|warning|info|error|debug|exception)$")
WAITING = re.compile(r"^(sleep|wait|join|poll|select|settimeout)$")
NO_CALL = ("TypeVar", "NewType", "ParamSpec", "filterwarnings")
TYPES = ("Literal", "Annotated", "Callable", "Union", "Optional", "dict", "list", "tuple", "type")
UNSEEN_ARGUMENTS = ("daemon", "flush", "strict", "description", "help", "title")


def breaks_of(file: str, source: str) -> list[Break]:
    """All breaks of a file, in the order of its lines; no two give the same line."""
    search = _Search(file, source)
    search.visit(ast.parse(source))
    unique = {(found.line, found.after): found for found in reversed(search.found)}
    return sorted(unique.values(), key=lambda found: (found.line, found.kind, found.after))


class _Search(ast.NodeVisitor):
    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.lines = source.splitlines()
        self.found: list[Break] = []
        self._speaking = 0
        """How many calls and statements around this place only speak."""
        self._timing = 0
        """How many around it count seconds."""

    def visit_Import(self, node: ast.Import) -> None: ...

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if GPU.search(node.name):
            return
        self.visit(node.args)
        nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
        for inner in _own_statements(node):
            if isinstance(inner, ast.Return) and not nothing:
                self._return(inner)
        self._all(node.body)

    def visit_arguments(self, node: ast.arguments) -> None:
        positional = [*node.posonlyargs, *node.args]
        given = list(zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True))
        given += [(name, value) for name, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value]
        for name, value in given:
            if not SECONDS.search(name.arg):
                before = len(self.found)
                self.visit(value)
                self._rename(before, "default argument")

    def visit_Assign(self, node: ast.Assign) -> None:
        name = node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""
        if name != "__all__" and not _speaks_of_types(node.value) and not (name.isupper() and _unseen(name)):
            self._deleted(node, node.targets[0])
            self._all(node.targets)
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        name = node.target.id if isinstance(node.target, ast.Name) else ""
        alias = "TypeAlias" in ast.unparse(node.annotation)
        if node.value is not None and not alias and not (name.isupper() and _unseen(name)):
            self._deleted(node, node.target)
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._deleted(node, node.target)
        if type(node.op) in ARITHMETIC and not _is_text(node.value):
            sign, other = ARITHMETIC[type(node.op)]
            self._between("arithmetic", node.target, node.value, sign, other)
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._replace_whole("statement deleted", node, "pass")
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in NO_CALL:
            return
        self.visit(node.func)
        speaks, waits = bool(SPEAKING.match(called)), bool(WAITING.match(called))
        self._speaking, self._timing = self._speaking + speaks, self._timing + waits
        self._all(node.args[1:] if called == "cast" else node.args)
        for argument in node.keywords:
            thread = argument.arg == "name" and called in ("Thread", "Process")
            if argument.arg not in UNSEEN_ARGUMENTS and not thread and not SECONDS.search(argument.arg or ""):
                self.visit(argument.value)
        self._speaking, self._timing = self._speaking - speaks, self._timing - waits

    def visit_Raise(self, node: ast.Raise) -> None:
        self._speaking += 1
        self.generic_visit(node)
        self._speaking -= 1

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace_whole("continue to break", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace_whole("break to continue", node, "continue")

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if not re.search(r"\bTYPE_CHECKING\b|\b__name__ ==", test):
            self._negated(node.test)
            self.visit(node.test)
            if not GPU.search(test):
                self._all(node.body)
        self._all(node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negated(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negated(test)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        sign, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(f"{sign} to {other}", left, right, rf"\b{sign}\b", other)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            rest = self._bytes(node.lineno)[node.col_offset :]
            skipped = re.match(rb"not\s*", rest)
            if skipped:
                self._replace("not removed", node.lineno, node.col_offset, node.col_offset + skipped.end(), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not _is_text(node.left) and not _is_text(node.right):
            sign, other = ARITHMETIC[type(node.op)]
            self._between("arithmetic", node.left, node.right, sign, other)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            by_clock = isinstance(operator, ORDERED) and CLOCK.search(self.lines[node.lineno - 1])
            if type(operator) in COMPARISONS and not by_clock:
                sign, other = COMPARISONS[type(operator)]
                self._between("comparison", left, right, sign, other)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value, line = node.value, self.lines[node.lineno - 1]
        if GPU.search(line):
            return
        if isinstance(value, bool):
            self._replace_whole("constant", node, str(not value))
        elif isinstance(value, int | float) and not self._timing and not CLOCK.search(line):
            self._replace_whole("constant", node, repr(value + 1))
        elif isinstance(value, str) and value and not self._speaking and not re.search(r"\s", value):
            self._replace_whole("constant", node, '""')

    def _all(self, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def _return(self, node: ast.Return) -> None:
        plain = isinstance(node.value, ast.Constant) and node.value.value in (None, False)
        if node.value is not None and not plain:
            self._replace_whole("returns None", node, "return None")

    def _deleted(self, node: ast.stmt, target: ast.expr) -> None:
        if isinstance(target, ast.Attribute | ast.Subscript):
            self._replace_whole("statement deleted", node, "pass")

    def _negated(self, test: ast.expr) -> None:
        twin = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)  # the same as taking the `not` away
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], ORDERED):
            twin = True  # the same as the other comparison
        if not twin and test.lineno == test.end_lineno:
            text = self._bytes(test.lineno)[test.col_offset : test.end_col_offset].decode()
            self._replace_whole("condition negated", test, f"not ({text})")

    def _between(self, kind: str, left: ast.expr, right: ast.expr, sign: str, other: str) -> None:
        """Swap the operator between two operands; it may stand at the end of one line or at the start of another."""
        first, last = left.end_lineno or left.lineno, right.lineno
        for line in range(first, last + 1):
            start = (left.end_col_offset or 0) if line == first else 0
            text = self._bytes(line)[start : right.col_offset if line == last else None].split(b"#")[0]
            found = re.search(sign.encode(), text)
            if found:
                self._replace(kind, line, start + found.start(), start + found.end(), other)
                return

    def _replace_whole(self, kind: str, node: ast.stmt | ast.expr, new: str) -> None:
        if node.lineno == node.end_lineno and node.end_col_offset is not None:
            self._replace(kind, node.lineno, node.col_offset, node.end_col_offset, new)

    def _replace(self, kind: str, line: int, start: int, end: int, new: str) -> None:
        old = self._bytes(line)
        after = (old[:start] + new.encode() + old[end:]).decode()
        self.found.append(Break(self.file, line, kind, self.lines[line - 1], after))

    def _rename(self, since: int, kind: str) -> None:
        self.found[since:] = [replace(found, kind=kind) for found in self.found[since:]]

    def _bytes(self, line: int) -> bytes:
        """Positions in the syntax tree count bytes."""
        return self.lines[line - 1].encode()


def _own_statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """The statements of a function, without those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _is_text(node: ast.expr) -> bool:
    """Whether arithmetic on this could only be a mistake of types: text that is added to, or a path."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _speaks_of_types(node: ast.expr) -> bool:
    """Whether what is assigned is a type: `Literal[...]`, `Tensor | None`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _speaks_of_types(node.left) or (isinstance(node.left, ast.Name) and node.left.id[0].isupper())
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES


def _unseen(name: str) -> bool:
    return bool(SECONDS.search(name) or AT_ONCE.search(name))
