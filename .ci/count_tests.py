"""count_tests.py REPORT: print how many tests passed, failed and were skipped (JUnit report)."""

import sys
import xml.etree.ElementTree as xml

suites = list(xml.parse(sys.argv[1]).getroot().iter("testsuite"))
total, skipped, failed, errors = (
    sum(int(suite.attrib[key]) for suite in suites)
    for key in ("tests", "skipped", "failures", "errors")
)
assert total - skipped > 0, "no test was executed"
print(f"{total - skipped - failed - errors} passed, {failed + errors} failed, {skipped} skipped")
