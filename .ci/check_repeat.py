"""check_repeat.py RUN RUN: fail unless the two runs have the same digests."""

import json
import sys
from pathlib import Path

first, again = (json.loads(Path(d, "result.json").read_text()) for d in sys.argv[1:])
for key in ("weights_sha256", "metrics_sha256"):
    assert first[key] == again[key], f"{key}: {first[key]} and {again[key]}"
print("the resolved config.yaml repeats the run, bit for bit")
