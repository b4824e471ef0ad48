"""count_tests.py REPORT...: print how many tests passed, failed and were skipped (JUnit files)."""

import sys
import xml.etree.ElementTree as xml

suites = [
    suite for report in sys.argv[1:] for suite in xml.parse(report).getroot().iter("testsuite")
]
total, skipped, failed, errors = (
    sum(int(suite.attrib[key]) for suite in suites)
    for key in ("tests", "skipped", "failures", "errors")
)
assert total - skipped > 0, "no test was executed"
print(f"{total - skipped - failed - errors} passed, {failed + errors} failed, {skipped} skipped")
