"""The program ``fedbench``, assembled from its commands.

No command's module imports anything heavy at its top, so ``--help`` answers immediately.
"""

from __future__ import annotations

import click

from .base import Group
from .compare import compare, report
from .config import config
from .listings import cards, data, hooks, partition, plugins
from .new import new
from .profile import profile
from .reproduce import reproduce
from .run import resume, run, show
from .tune import tune
from .verify import verify


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedbench-toolkit", prog_name="fedbench")
def main() -> None:
    """Benchmark federated learning methods: paired, and reproducible to the bit.

    \b
    fedbench run fedhpro --data digits          run a method
    fedbench run fedhpro --without hpal         run an ablation
    fedbench config fedhpro > mine.yaml         write a complete config to edit
    fedbench run mine.yaml                      run it
    fedbench compare fedavg fedhpro --seeds 5   compare methods, seed by seed
    fedbench tune fedavg fedhpro --trials 20    equal tuning, then compare
    fedbench plugins                            list what is installed
    fedbench data                               list the data sets
    fedbench hooks                              list what a plugin can implement
    """


for command in (
    *(run, resume, show, config, compare, tune, report, reproduce),
    *(plugins, hooks, cards, partition, data, new, profile, verify),
):
    main.add_command(command)
