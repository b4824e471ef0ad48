"""check_result.py METHOD: check a run of 3 rounds on digits, whose files are in folder METHOD."""

import json
import math
import sys
from pathlib import Path

folder = Path(sys.argv[1])
result = json.loads((folder / "result.json").read_text())
assert result["method"] == sys.argv[1], result["method"]
assert result["data"] == "digits"
assert result["rounds"] == 3
domains = result["accuracy"]["domains"]
assert list(domains) == ["mnist", "optdigits", "mnistm", "syn"], domains
assert all(0 <= v <= 1 for v in domains.values()), domains
assert math.isclose(result["accuracy"]["mean"], sum(domains.values()) / 4)
assert result["accuracy"]["mean"] > 0.2, "three rounds must clearly beat chance (0.1)"
assert result["bytes"]["up"]["weights"] == result["bytes"]["down"]["weights"] > 0
assert len(result["weights_sha256"]) == len(result["metrics_sha256"]) == 64
assert len((folder / "rounds.jsonl").read_text().splitlines()) == 3
print(f"{sys.argv[1]}: result.json is valid, mean accuracy {result['accuracy']['mean']:.3f}")
