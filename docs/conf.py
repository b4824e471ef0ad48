"""Configure Sphinx; build the site with ``sphinx-build -W --keep-going -n docs build/docs``."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
os.environ["FEDBENCH_PLUGINS"] = ""  # document only fedbench, not other installed packages

project = "fedbench"
author = "the fedbench authors"
release = version = version_of("fedbench-toolkit")
html_title = f"fedbench {release}"

extensions = ["myst_parser", "building"]
smartquotes = False  # they would turn the hyphens of --set into a dash
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
