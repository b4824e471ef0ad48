"""The program ``fedbench``: its commands, put together.

Nothing heavy is imported at the top of a command's module, so that ``--help`` answers at once.
"""

from __future__ import annotations

import click

from .base import Group
from .compare import compare, report
from .config import config
from .listings import cards, data, hooks, partition, plugins
from .new import new
from .profile import profile
from .run import resume, run, show
from .verify import verify


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedbench-toolkit", prog_name="fedbench")
def main() -> None:
    """Benchmark federated learning methods: paired, reproducible to the bit.

    \b
    fedbench run fedhpro --data digits              run a method
    fedbench run fedhpro --without hpal             an ablation
    fedbench config fedhpro > mine.yaml             a full file to edit
    fedbench run mine.yaml                          run it
    fedbench plugins                                what is installed
    fedbench data                                   which data sets there are
    fedbench hooks                                  what a plugin can do, with examples
    """


for command in (
    *(run, resume, show, config, compare, report),
    *(plugins, hooks, cards, partition, data, new, profile, verify),
):
    main.add_command(command)
