"""A picture of the series. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

from vcld.accounting.series import Series
from vcld.errors import ConfigError, UsageError

FORMATS = (".png", ".svg")


def check_path(path: Path) -> None:
    """Refuse a format that cannot be drawn.

    Raises:
        UsageError: the name ends in something else.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a plot is {' or '.join(FORMATS)}; name the file so")


def plot(series: Series, path: Path) -> None:
    """Draw running VMs and, below, transfer time; the name's ending says which format.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
        UsageError: the format is another.
    """
    check_path(path)
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra that only this command needs
        import matplotlib.dates  # noqa: PLC0415
        import matplotlib.ticker  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as err:
        raise ConfigError(
            "plots need matplotlib, which is not installed:"
            f" {sys.executable} -m pip install matplotlib"
        ) from err
    # The same series gives the same file, text stays text, and nothing is looked up at home.
    mpl.rcParams.update({"svg.hashsalt": "vcld", "svg.fonttype": "none"})
    times = [
        dt.datetime.fromtimestamp(series.start + number * series.step_seconds, dt.UTC)
        for number in range(len(series.running_vms) + 1)
    ]
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.stairs(series.running_vms, times, baseline=None, color="tab:blue", linewidth=1.5)
    above.set_ylabel("running VMs")
    above.set_ylim(0, _top(series.running_vms))
    width = dt.timedelta(seconds=series.step_seconds)
    minutes = [seconds / 60 for seconds in series.transfer_seconds]
    below.bar(times[:-1], minutes, width=width, align="edge", color="tab:orange")
    below.set_ylabel("transfer time (min)")
    below.set_xlabel("UTC")
    below.set_ylim(0, _top(minutes))
    below.set_xlim(times[0], times[-1])
    locator = mpl.dates.AutoDateLocator(tz=dt.UTC)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    formatter = mpl.dates.ConciseDateFormatter(locator, tz=dt.UTC)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_formatter(formatter)
    for axes in (above, below):
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=axes is above))
        axes.grid(visible=True, alpha=0.3)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as err:
        raise ConfigError(f"{path} cannot be written: {err.strerror}") from err


def _top(values: Sequence[float]) -> float:
    """The upper end of an axis on which nothing at all looks like nothing, too."""
    return max(1.0, 1.05 * max(values, default=0))
