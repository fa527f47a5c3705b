#!/usr/bin/env python3
"""Stands in for the Interactive Parallelization Tool: asks what that asks, and writes rose_NAME_OpenMP.c."""

import pathlib
import re
import sys

MODELS = {"1": "MPI", "2": "OpenMP", "3": "CUDA"}


def ask(question, answers=None):
    while True:
        answer = input(f"{question} ").strip()
        if answer and (answers is None or answer.lower() in answers):
            return answer.lower() if answers else answer
        print("Please answer with one of:", ", ".join(answers or ["a name"]))


def main():
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ask("Which file?"))
    lines = source.read_text().splitlines()
    model = MODELS[ask("Please select a parallel programming model (1 MPI, 2 OpenMP, 3 CUDA):", MODELS)]
    functions = [m[1] for line in lines if (m := re.match(r"\w+ (\w+)\(.*\)", line))]
    for number, name in enumerate(functions, 1):
        print(f"  {number}: {name}")
    function = functions[int(ask("Which function?", [str(n) for n in range(1, len(functions) + 1)])) - 1]
    begin = next(n for n, line in enumerate(lines) if re.match(rf"\w+ {function}\(", line))
    chosen = None
    for number in range(begin, len(lines)):
        if number > begin and lines[number].startswith("}"):
            break
        if lines[number].strip().startswith("for"):
            print(f"\033[36m{number + 1:4}: {lines[number]}\033[0m")
            if ask("Is this the for loop you are looking for? (y/n)", ["y", "n"]) == "y":
                chosen = number
                break
    if chosen is None:
        sys.exit("There is no other loop.")
    clauses = ""
    if ask("Is there a reduction? (y/n)", ["y", "n"]) == "y":
        operation = ask("Which operation? (+ * max min)", ["+", "*", "max", "min"])
        clauses += f" reduction({operation}:{ask('Which variable?')})"
    if ask("Are there private variables? (y/n)", ["y", "n"]) == "y":
        clauses += f" private({ask('Which, with commas between them?')})"
    lines.insert(chosen, f"#pragma omp parallel for{clauses}")
    written = source.with_name(f"rose_{source.stem}_{model}.c")
    written.write_text("\n".join(lines) + "\n")
    print(f"\033[32mWrote {written.name}\033[0m")


main()
