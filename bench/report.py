"""The form of a benchmark's result: build/bench/NAME.json and the same as a table.

{"name", "rows": [{"subject", "metric", "unit", "median", "min", "max", "n", "ratios": {OTHER: number}}]}. For a percentile row, "median" is
that percentile of the samples, "min" and "max" are the samples' own. A ratio is this row's figure over that of the other subject's row
of the same metric, taken in the same run.
"""
import json
import os
import time

from tests.lab import ROOT

BEGAN = time.monotonic()


def percentile(samples, p):
    """The nearest-rank percentile: a value that was seen."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * p // 100) - 1)]


class Report:
    MORE = ()  # headings of the columns that a kind of report adds to the table

    def __init__(self, name):
        self.name, self.rows = name, []

    def add(self, subject, metric, unit, samples, p=50):
        self.rows.append({"subject": subject, "metric": metric, "unit": unit, "median": round(percentile(samples, p), 3),
                          "min": round(min(samples), 3), "max": round(max(samples), 3), "n": len(samples), "ratios": {}})

    def _fill_ratios(self):
        for row in self.rows:
            for other in self.rows:
                if other["metric"] == row["metric"] and other is not row and other["median"]:
                    row["ratios"][other["subject"]] = round(row["median"] / other["median"], 3)

    def write(self):
        self._fill_ratios()
        path = os.path.join(ROOT, "build/bench", self.name + ".json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".tmp", "w") as f:
            json.dump({"name": self.name, "rows": self.rows}, f, indent=1)
            f.write("\n")
        os.rename(path + ".tmp", path)
        self._print(path)

    def more(self, row):
        """The cells below MORE."""
        return ()

    def _print(self, path):
        lines = [("metric", "subject", "figure", "min", "max", "n", *self.MORE, "over others")]
        for r in self.rows:
            ratios = "  ".join(f"{v:g} x {k}" for k, v in r["ratios"].items())
            lines.append((r["metric"], r["subject"], f"{r['median']:g} {r['unit']}", f"{r['min']:g}", f"{r['max']:g}", str(r["n"]), *self.more(r),
                          ratios))
        widths = [max(len(l[i]) for l in lines) for i in range(len(lines[0]))]
        for l in lines:
            print("  ".join(word.ljust(w) for word, w in zip(l, widths)).rstrip())
        print(f"written to {os.path.relpath(path, ROOT)}, after {time.monotonic() - BEGAN:.0f} s\nbench: ok")
