"""A picture of the series. Needs matplotlib: ``pip install 'vcld[plot]'``."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from vcld.accounting.series import Series
from vcld.errors import ConfigError

FORMATS = (".png", ".svg")


def plot(series: Series, path: Path) -> None:
    """Draw running VMs and, below, transfer time; the name's ending says which format.

    Raises:
        ConfigError: matplotlib is not installed, the format is another, or the file cannot be
            written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: a plot is {' or '.join(FORMATS)}; name the file so")
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra that only this command needs
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as err:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'vcld[plot]'"
        ) from err
    # The same series gives the same file, text stays text, and nothing is looked up at home.
    mpl.rcParams.update({"svg.hashsalt": "vcld", "svg.fonttype": "none"})
    times = [
        dt.datetime.fromtimestamp(series.start + number * series.step_seconds, dt.UTC)
        for number in range(len(series.running_vms))
    ]
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.step(times, series.running_vms, where="post", color="tab:blue")
    above.set_ylabel("running VMs")
    above.set_ylim(bottom=0)
    width = dt.timedelta(seconds=series.step_seconds)
    minutes = [seconds / 60 for seconds in series.transfer_seconds]
    below.bar(times, minutes, width=width, align="edge", color="tab:orange")
    below.set_ylabel("transfer time (min)")
    below.set_xlabel("UTC")
    below.tick_params(axis="x", rotation=30)
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as err:
        raise ConfigError(f"{path} cannot be written: {err.strerror}") from err
