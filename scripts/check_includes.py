#!/usr/bin/env python3
"""Checks the rules of rooms, names and file heads that a compiler cannot see.

Usage: check_includes.py [--self-test]

- Who may include whom: the table ROOMS below, as in DESIGN.md; main_*.cpp files are composition
  roots and exempt. Includes of our own files are written from the repository's root.
- No circle, neither between rooms nor between files.
- runtime/base is a closed list; words that say nothing are banned in names of files and folders.
- A header opens with a comment whose last line is `// Path: hot.` or `// Path: cold.`; in
  the rooms where hot code lives (HOT_ROOMS) a hot header includes no containers, streams, locks or
  std::function (exceptions by name: HOT_EXCEPTIONS).
- A source file has at most 600 lines; at most one file outside perf includes mpi.h.
--self-test breaks each rule on made files and fails where a break goes unseen.
"""
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

BASE = "runtime/base"
CONFIG, PROGRAM, PARALLEL = "runtime/config", "runtime/program", "runtime/parallel"
MODELS, PLAN, COMM = "runtime/models", "runtime/plan", "runtime/comm"
KERNELS, EXEC, FORMATS, ENGINE = "kernels", "runtime/exec", "formats", "runtime/engine"
LIBRARY = [BASE, CONFIG, PROGRAM, PARALLEL, MODELS, PLAN, COMM, KERNELS, EXEC, FORMATS, ENGINE]
# Room -> the rooms it may include beside itself.
ROOMS = {
    BASE: [],
    CONFIG: [BASE],
    PROGRAM: [BASE],
    PARALLEL: [BASE, CONFIG, PROGRAM],
    MODELS: [BASE, CONFIG, PROGRAM, PARALLEL],
    PLAN: [BASE, CONFIG, PROGRAM, PARALLEL, MODELS],
    COMM: [BASE],
    KERNELS: [BASE, PROGRAM],
    EXEC: [BASE, PROGRAM, PLAN, COMM, KERNELS],
    FORMATS: [BASE],
    ENGINE: LIBRARY[:-1],
    "trainer": LIBRARY,
    "infer": LIBRARY,
    "tests": LIBRARY + ["trainer", "infer", "perf"],
    "perf": LIBRARY + ["trainer", "infer", "tests"],
}
# tests and perf share case tables and nothing else includes them: one room to the circle test.
LEAVES = {"tests", "perf"}
BASE_FILES = {"types", "error", "check", "view", "dtype", "checked", "random", "digest", "hash",
              "log", "host_device"}
BANNED = {"util", "utils", "misc", "common", "helper", "helpers", "manager", "managers", "new",
          "v2"}
HOT_ROOMS = {BASE, PROGRAM, KERNELS, EXEC}
BANNED_IN_HOT = {
    "vector", "string", "map", "set", "unordered_map", "unordered_set", "deque", "list", "memory",
    "functional", "any", "iostream", "sstream", "fstream", "mutex", "shared_mutex",
    "condition_variable", "future", "thread", "regex", "filesystem",
}
# A hot header's convenience for cold callers, declared but not called on the hot path.
# The executor owns its records: filled when it binds, only walked when it runs.
HOT_EXCEPTIONS = {
    "runtime/base/hash.h": {"string"},
    "runtime/exec/executor.h": {"vector", "memory"},
    "kernels/gpu.h": {"string", "memory"},
}
HEADERS = {".h", ".hpp", ".cuh"}
CPP = HEADERS | {".cpp", ".cu", ".inc"}
LINE_LIMIT, LINE_LIMITED = 600, CPP | {".py", ".sh"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def room_of(path):
    """The room of a file, or None where no room's rules hold."""
    parts = PurePosixPath(path).parts
    for depth in (2, 1):
        room = "/".join(parts[:depth])
        if len(parts) > depth and room in ROOMS:
            return room
    return None


def is_root(path):
    return re.fullmatch(r"main_\w+\.cpp", PurePosixPath(path).name) is not None


def find_circle(edges):
    """A circle in {node: [node]} as a list whose first and last are equal, or None."""
    state, trail = {}, []

    def visit(node):
        state[node] = "open"
        trail.append(node)
        for target in sorted(edges.get(node, ())):
            if state.get(target) == "open":
                return trail[trail.index(target):] + [target]
            if target not in state:
                circle = visit(target)
                if circle:
                    return circle
        state[node] = "done"
        trail.pop()
        return None

    for node in sorted(edges):
        if node not in state:
            circle = visit(node)
            if circle:
                return circle
    return None


def header_comment(text):
    lines = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line)
    return lines


def check_names(path):
    for part in PurePosixPath(path).parts:
        for word in re.split(r"[._-]+", part.lower()):
            if word in BANNED:
                yield f"the word '{word}' in '{part}' says nothing; name what the file is about"
    if room_of(path) == BASE and PurePosixPath(path).stem not in BASE_FILES:
        yield f"{BASE} is a closed list: {', '.join(sorted(BASE_FILES))}"


def check_header(path, text):
    comment = header_comment(text)
    last = comment[-1] if comment else ""
    if last not in ("// Path: hot.", "// Path: cold."):
        yield ("a header opens with a comment whose last line is '// Path: hot.' or "
               f"'// Path: cold.'; found '{last}'")
    if last == "// Path: hot." and room_of(path) in HOT_ROOMS:
        allowed = HOT_EXCEPTIONS.get(path, set())
        for name in sorted({system for _, system in INCLUDE.findall(text)}):
            if name in BANNED_IN_HOT - allowed:
                yield f"a hot header may not include <{name}>"


def check(files):
    """All broken rules of {path: text} as sorted 'path: what' lines."""
    errors, file_edges, room_edges, mpi = set(), {}, {}, []
    for path, text in files.items():
        suffix = PurePosixPath(path).suffix
        errors |= {f"{path}: {what}" for what in check_names(path)}
        line_count = text.count("\n")
        if suffix in LINE_LIMITED and line_count > LINE_LIMIT:
            errors.add(f"{path}: {line_count} lines; at most {LINE_LIMIT}")
        if suffix not in CPP:
            continue
        room = room_of(path)
        if room is None:
            errors.add(f"{path}: a source file in no room; the rooms are {', '.join(ROOMS)}")
            continue
        if suffix in HEADERS:
            errors |= {f"{path}: {what}" for what in check_header(path, text)}
        for quoted, system in INCLUDE.findall(text):
            name = quoted or system
            if PurePosixPath(name).name == "mpi.h" and room != "perf":
                mpi.append(path)
            if not quoted and name not in files:
                continue
            if not quoted:
                errors.add(f'{path}: <{name}> is ours: write "{name}"')
            if name not in files:
                errors.add(f'{path}: "{name}" is no file of ours; write paths from the root, and '
                           "<...> for what is not ours")
                continue
            file_edges.setdefault(path, set()).add(name)
            target = room_of(name)
            if target == room or is_root(path):
                continue
            if not LEAVES >= {room, target}:
                room_edges.setdefault(room, set()).add(target)
            if target not in ROOMS[room]:
                allowed = ", ".join(ROOMS[room]) or "no other room"
                errors.add(f"{path}: {room} may not include {name} (allowed: {allowed})")
    for kind, edges in (("rooms", room_edges), ("files", file_edges)):
        circle = find_circle(edges)
        if circle:
            errors.add(f"{circle[0]}: circle of {kind}: {' -> '.join(circle)}")
    if len(set(mpi)) > 1:
        errors.add(f"mpi.h: included by {', '.join(sorted(set(mpi)))}; one file at most may")
    return sorted(errors)


def project_files(root):
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=root, check=True, capture_output=True).stdout.decode()
    files = {}
    for path in filter(None, listed.split("\0")):
        if (root / path).is_file():
            files[path] = (root / path).read_text(encoding="utf-8", errors="replace")
    return files


def self_test():
    head = "// What it promises.\n// Path: cold.\n#pragma once\n"
    hot = head.replace("cold", "hot")
    sound = {
        "runtime/base/types.h": hot,
        "runtime/base/hash.h": hot + "#include <string>\n",
        "runtime/program/op.h": hot + '#include "runtime/base/types.h"\n',
        "runtime/exec/bind.cpp": '#include "kernels/kernels.h"\n',
        "kernels/kernels.h": hot + '#include "runtime/program/op.h"\n',
        "kernels/cpu/gemm.cpp": '#include "kernels/kernels.h"\n#include <vector>\n',
        "runtime/plan/main_plan.cpp": '#include "kernels/kernels.h"\n',
        "runtime/comm/comm_mpi.cpp": "#include <mpi.h>\n",
        "tests/kernels/cases.h": head + '#include "runtime/program/op.h"\n',
        "perf/gemm.cpp": '#include "tests/kernels/cases.h"\n',
        "trainer/loop.h": head + "#include <vector>\n",
        "README.md": "a text\n" * 1000,
    }
    # What is added to or replaced in the sound files -> a part of the one complaint expected.
    broken = [
        ({"runtime/base/error.h": head + '#include "runtime/program/op.h"\n'},
         "runtime/base may not"),
        ({"runtime/exec/a.cpp": '#include "runtime/config/b.h"\n', "runtime/config/b.h": head},
         "runtime/exec may not include runtime/config/b.h"),
        ({"runtime/plan/a.cpp": '#include "kernels/kernels.h"\n'}, "runtime/plan may not"),
        ({"formats/a.cpp": '#include "runtime/program/op.h"\n'}, "formats may not"),
        ({"infer/a.cpp": '#include "trainer/loop.h"\n'}, "infer may not include trainer/loop.h"),
        ({"trainer/a.cpp": '#include "tests/kernels/cases.h"\n'}, "trainer may not"),
        ({"kernels/cpu/a.cpp": '#include "b.h"\n', "kernels/cpu/b.h": head}, "no file of ours"),
        ({"kernels/cpu/a.cpp": "#include <kernels/kernels.h>\n"}, "is ours"),
        ({"trainer/a.h": head + '#include "trainer/b.h"\n',
          "trainer/b.h": head + '  #  include "trainer/a.h"\n'}, "circle of files"),
        ({"runtime/base/types.h": hot + '#include "runtime/program/op.h"\n'}, "circle of rooms"),
        ({"runtime/plan/pack_util.cpp": ""}, "'util'"),
        ({"trainer/common/a.cpp": ""}, "'common'"),
        ({"scripts/helpers.sh": ""}, "'helpers'"),
        ({"runtime/base/text.cpp": ""}, "closed list"),
        ({"src/a.cpp": ""}, "in no room"),
        ({"trainer/a.h": "#pragma once\n// Path: cold.\n"}, "opens with a comment"),
        ({"trainer/a.h": "// Path: cold.\n// More.\n"}, "opens with a comment"),
        ({"trainer/a.h": "// Path: warm.\n"}, "opens with a comment"),
        ({"runtime/exec/a.h": hot + "#include <mutex>\n"}, "may not include <mutex>"),
        ({"runtime/base/hash.h": hot + "#include <vector>\n"}, "may not include <vector>"),
        ({"trainer/a.cpp": "\n" * 601}, "601 lines"),
        ({"runtime/engine/a.cpp": "#include <mpi.h>\n"}, "one file at most"),
    ]
    failures = []
    if check(sound):
        failures.append(f"complaints about sound files: {check(sound)}")
    for change, expected in broken:
        if not any(expected in error for error in check({**sound, **change})):
            failures.append(f"unseen: {expected} in {sorted(change)}")
    if find_circle({room: set(allowed) - LEAVES for room, allowed in ROOMS.items()}):
        failures.append("the table of rooms has a circle")
    for failure in failures:
        print(f"self-test: {failure}", file=sys.stderr)
    if not failures:
        print(f"self-test: {len(broken)} breaks, each seen; sound files pass")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        print(f"error: unknown arguments {sys.argv[1:]}; only --self-test is known",
              file=sys.stderr)
        return 2
    files = project_files(Path(__file__).resolve().parent.parent)
    errors = check(files)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if not errors:
        print(f"includes: {len(files)} files keep the rules of rooms, names and heads")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
