"""`python -m bench [NAME ...]`: measure all, or those named, and write the results."""

import sys
from importlib import import_module

from bench.figures import REGISTRY, write

SUBJECTS = (
    "accuracy",
    "images",
    "spans",
    "tables",
    "match",
    "rates",
    "smaller",
    "auto",
    "memory",
    "batch",
    "startup",
    "flow",
    "tamper",
    "protocol",
    "fuzz",
    "fuzz_keys",
    "service",
    "ledger",
)


def main(names: list[str]) -> int:
    """Measure; the exit status says whether all bars hold."""
    for subject in SUBJECTS:
        import_module(f"bench.{subject}")
    strange = [name for name in names if name not in REGISTRY]
    if strange:
        print(f"No benchmark {', '.join(strange)}; there are: {', '.join(REGISTRY)}.")
        return 2
    missed = 0
    for name in names or list(REGISTRY):
        print(f"measuring {name}", flush=True)
        figures = REGISTRY[name]()
        write(name, figures)
        for figure in figures:
            missed += not figure.holds
            mark = "holds" if figure.holds else "MISSED"
            print(f"  {figure.name}: {figure.value:.4g} {figure.unit} "
                  f"({figure.op} {figure.bar}) {mark}", flush=True)  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
