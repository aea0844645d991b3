"""What scripts/compare-objects lets pass and what it does not, on objects that clang wrote.

Run by scripts/test; needs clang on PATH.
"""

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

SCRIPT = os.path.join(os.path.dirname(__file__), "../../scripts/compare-objects")
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("compare_objects", SCRIPT)
spec = importlib.util.spec_from_loader("compare_objects", loader)
tool = importlib.util.module_from_spec(spec)
loader.exec_module(tool)

SOURCE = "int f(void); int g(void); int (*p)(void) = f; int (*q)(void) = g; int h(int n) { return n %s 1; }"


def compiled(work, operator):
    source, output = os.path.join(work, "a.c"), os.path.join(work, "a.o")
    with open(source, "w", encoding="utf-8") as file:
        file.write(SOURCE % operator)
    subprocess.run(["clang", "-O2", "-faddrsig", "-ffunction-sections", "-c", source, "-o", output], check=True)
    return tool.read(output)


def with_other_order(data):
    """The same set of address-significant symbols in another order."""
    _, offset, size = next(s for s in tool.sections(data) if s[0] == tool.ADDRSIG)
    assert size > 1
    return data[:offset] + data[offset : offset + size][::-1] + data[offset + size :]


def run(links, *arguments):
    return subprocess.run([SCRIPT, links, "link", *arguments], stdout=subprocess.PIPE, check=False)


def link_of(work, ours, theirs):
    """A directory as scripts/oracle-ld leaves it, of one link with the given objects."""
    links = os.path.join(work, "links")
    shutil.rmtree(links, ignore_errors=True)
    base = os.path.join(links, "fs/a.o.link")
    os.makedirs(os.path.join(base, "reference"))
    os.makedirs(os.path.join(base, "link/native"))
    with open(os.path.join(base, "link/modules"), "w", encoding="utf-8") as file:
        file.write("".join(f"m{i}.o\n" for i in range(len(ours))))
    for i, data in enumerate(ours, 1):
        with open(os.path.join(base, f"link/native/{i:04}.o"), "wb") as file:
            file.write(data)
    for i, data in enumerate(theirs, 1):
        with open(os.path.join(base, f"reference/o{i}"), "wb") as file:
            file.write(data)
    return links


def main():
    passed = 0
    with tempfile.TemporaryDirectory() as work:
        plus, minus = compiled(work, "+"), compiled(work, "-")
        swapped = with_other_order(plus)
        assert tool.difference(plus, plus) is None
        assert tool.difference(plus, swapped) == tool.ADDRSIG
        assert ".text.h" in tool.difference(plus, minus)
        assert tool.difference(plus, b"no ELF") not in (None, tool.ADDRSIG)
        exceptions = os.path.join(work, "exceptions")
        with open(exceptions, "w", encoding="utf-8") as file:
            file.write("# comment\nm1.o it subtracts\n")
        for ours, theirs, arguments, status in (
            ([plus, plus], [plus, swapped], [], 0),
            ([plus, plus], [plus, minus], [], 1),
            ([plus, plus], [plus, minus], ["--exceptions", exceptions], 0),
            ([plus, plus], [plus, plus], ["--exceptions", exceptions], 1),  # not needed any more
            ([plus, plus], [plus], [], 1),
            ([plus], [plus, plus], [], 1),
            ([], [], [], 1),  # nothing compared is no proof
        ):
            done = run(link_of(work, ours, theirs), *arguments)
            assert done.returncode == status, done.stdout.decode()
            passed += 1
    print(f"compare-objects: {passed} comparisons judged right")


main()
