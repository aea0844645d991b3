"""Results of scripts/bench, read back from the CSV that `bench-measure csv` prints."""

import csv

ABOUT = ("row", "date", "runs", "versions")


class Result:
    """A row of scripts/bench: when and with what it was measured, and the figures of each of its variants."""

    def __init__(self, row, date, runs, versions):
        self.row, self.date, self.runs, self.versions = row, date, runs, versions
        self.variants = {}

    def first(self, *names):
        """The first of these variants that was measured."""
        return next((self.variants[name] for name in names if name in self.variants), None)


def figure(text):
    """A field of the CSV as the number or the truth that it was."""
    return text == "True" if text in ("True", "False") else float(text)


def read(lines):
    """The results by their rows, in the order of the CSV. A figure that a variant does not have is left out."""
    results = {}
    for line in csv.DictReader(lines):
        about = [line.pop(key) for key in ABOUT]
        result = results.setdefault(about[0], Result(*about))
        name = line.pop("variant")
        result.variants[name] = {key: figure(text) for key, text in line.items() if text}
    return results
