"""A picture that shows what was decided about a clip, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from mersuite.clip import Media
from mersuite.errors import ConfigError
from mersuite.faces.analysis import FaceAnalysis
from mersuite.media.video import frames_at

SPEAKER = "#1f77d0"
LISTENER = "#e07b00"
OTHER = "#7a7f87"
INK = "#22262b"
MUTED = "#6b7280"
VOICE = "#c9ced6"
WARNING = "#b42318"
_NUM_FRAMES = 5
_WIDTH = 11.0
_HEIGHT_PX = 360
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e7eaee",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def check_matplotlib() -> None:
    """Tells before any work whether pictures can be drawn.

    Raises:
        ConfigError: If Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "debug pictures need Matplotlib, which is not installed: pip install 'mersuite[report]'"
        ) from error


def save_picture(stream: IO[bytes], name: str, video: Media, analysis: FaceAnalysis) -> None:
    """Writes a PNG: the decision, frames with boxes and roles, the crops, the motion of mouths and the voice.

    Boxes with a dashed edge are interpolated.

    Args:
        stream: A file that is open for writing.
        name: The clip's id, for the title.
        video: Its pictures.
        analysis: What was found.

    Raises:
        ConfigError: If Matplotlib is not installed.
        DataError: If the video cannot be read.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    frames = _strip_frames(analysis)
    pictures = frames_at(video.path, analysis.found.times_s[frames].tolist(), start_s=video.start_s, height=_HEIGHT_PX)
    aspect = pictures.images.shape[1] / pictures.images.shape[2]
    column = (_WIDTH - 0.3) / _NUM_FRAMES
    strip_height = column * aspect + 0.3
    faces_height = 0.6 * column if analysis.people else 0.0
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type, unused-ignore]
        figure = Figure(figsize=(_WIDTH, 0.62 + strip_height + faces_height + 2.98), layout="constrained")
        FigureCanvasAgg(figure)
        heights = (0.62, strip_height + faces_height, 2.98)
        head, strip, curves = np.ravel(np.asarray(figure.subfigures(3, 1, height_ratios=heights)))
        _draw_head(head, name, analysis)
        grid = {"height_ratios": (strip_height, faces_height)[: 1 + bool(analysis.people)]}
        axes = strip.subplots(1 + bool(analysis.people), _NUM_FRAMES, squeeze=False, gridspec_kw=grid)
        for ax in axes.flat:
            ax.set_axis_off()
        for place, (frame, image) in enumerate(zip(frames, pictures.images, strict=True)):
            _draw_frame(axes[0, place], image, analysis, int(frame))
            if analysis.people:
                _draw_faces(axes[1, place], analysis, int(frame))
        _draw_curves(curves, analysis, frames)
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})


def _strip_frames(analysis: FaceAnalysis) -> np.ndarray:
    """Frames to show: the middles of equal parts of the stretch in which people are seen."""
    seen = np.any([track.seen for track in analysis.people], axis=0) if analysis.people else None
    there = np.flatnonzero(seen) if seen is not None else np.arange(len(analysis.found.times_s))
    places = ((np.arange(_NUM_FRAMES) + 0.5) / _NUM_FRAMES * len(there)).astype(int)
    return np.unique(there[places])


def _role(analysis: FaceAnalysis, person: int) -> tuple[str, str]:
    """Word and colour."""
    doubt = "?" if analysis.decision.uncertain else ""
    if person == analysis.decision.speaker:
        return f"speaker{doubt}", SPEAKER
    if person == analysis.decision.listener:
        return f"listener{doubt}", LISTENER
    return "other", OTHER


def _draw_head(figure: Any, name: str, analysis: FaceAnalysis) -> None:
    decision = analysis.decision
    figure.text(0.008, 0.72, name, fontsize=13, fontweight="bold", va="center")
    figure.text(0.008, 0.22, decision.reason, fontsize=9.5, color=MUTED, va="center")
    word = "uncertain" if decision.uncertain else "certain"
    color = WARNING if decision.uncertain else INK
    text = f"confidence {decision.confidence:.2f} – {word}"
    figure.text(0.992, 0.72, text, fontsize=12, fontweight="bold", color=color, ha="right", va="center")
    counts = f"{_counted(len(analysis.people), 'face')}, {_counted(int(analysis.found.scenes[-1]) + 1, 'scene')}"
    figure.text(0.992, 0.22, counts, fontsize=9.5, color=MUTED, ha="right", va="center")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _draw_frame(ax: Any, image: np.ndarray, analysis: FaceAnalysis, frame: int) -> None:
    from matplotlib.patches import Rectangle

    ax.imshow(image, interpolation="lanczos")
    scale = image.shape[0] / analysis.found.size[0]
    for person, track in enumerate(analysis.people):
        if not track.seen[frame]:
            continue
        word, color = _role(analysis, person)
        x, y, width, height = track.boxes[frame] * scale
        is_measured = frame in analysis.found.detections
        style = "-" if is_measured else (0, (3, 2))
        ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=2.2, linestyle=style))
        label = {"boxstyle": "square,pad=0.25", "facecolor": color, "edgecolor": "none"}
        above = y > 0.12 * image.shape[0]
        ax.text(
            x,
            y if above else y + height,
            word,
            fontsize=7.5,
            color="white",
            va="bottom" if above else "top",
            bbox=label,
        )
    ax.set_title(f"{analysis.found.times_s[frame]:.2f} s", fontsize=8.5, color=MUTED, pad=3)
    ax.set_xlim(-0.5, image.shape[1] - 0.5)
    ax.set_ylim(image.shape[0] - 0.5, -0.5)


def _draw_faces(ax: Any, analysis: FaceAnalysis, frame: int) -> None:
    """The crops as they are written, side by side; pale where they repeat another frame's."""
    from matplotlib.patches import Rectangle

    side = analysis.crops.shape[2]
    for person, track in enumerate(analysis.people):
        left = person * 1.08 * side
        shown = ax.imshow(analysis.crops[person, frame], extent=(left, left + side, side, 0), interpolation="lanczos")
        shown.set_alpha(1.0 if track.seen[frame] else 0.35)
        color = _role(analysis, person)[1]
        ax.add_patch(Rectangle((left, 0), side, side, fill=False, edgecolor=color, linewidth=2.2))
    ax.set_xlim(-2, (1.08 * len(analysis.people) - 0.08) * side + 2)
    ax.set_ylim(side + 2, -2)


def _draw_curves(figure: Any, analysis: FaceAnalysis, frames: np.ndarray) -> None:
    times_s = analysis.found.times_s
    mouths, sound = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    for ax in (mouths, sound):
        for frame in frames:
            ax.axvline(times_s[frame], color=MUTED, linewidth=0.7, linestyle=(0, (1, 3)), zorder=1)
        for cut in np.flatnonzero(np.diff(analysis.found.scenes)) + 1:
            ax.axvline(times_s[cut], color=WARNING, linewidth=1.2)
    _shade_voice(mouths, analysis)
    top = _top(analysis.motions)
    for person, motion in enumerate(analysis.motions):
        word, color = _role(analysis, person)
        agreement = analysis.decision.agreements[person]
        tail = "" if np.isnan(agreement) else f", agreement {agreement:+.2f}"
        mouths.plot(times_s, motion / top, color=color, linewidth=1.7, label=f"{word}{tail}")
    mouths.set_ylabel("mouth motion")
    mouths.set_ylim(None if analysis.motions else 0, 1.08)
    if analysis.motions:
        mouths.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderaxespad=0.1, handlelength=1.6)
    if analysis.voice is None:
        sound.text(0.5, 0.5, "no sound", transform=sound.transAxes, ha="center", va="center", color=MUTED)
    else:
        sound.fill_between(times_s, analysis.voice.level, color=VOICE, linewidth=0)
        sound.plot(times_s, analysis.voice.level, color=INK, linewidth=1.3)
    sound.set_ylabel("sound level")
    sound.set_ylim(bottom=0)
    sound.set_xlabel("seconds")
    sound.set_xlim(times_s[0], times_s[-1] if len(times_s) > 1 else times_s[0] + 1)


def _shade_voice(ax: Any, analysis: FaceAnalysis) -> None:
    if analysis.voice is None:
        return
    ax.fill_between(
        analysis.found.times_s,
        0,
        1,
        where=analysis.voice.active,
        transform=ax.get_xaxis_transform(),
        color="#f0f2f5",
        linewidth=0,
        step="mid",
        zorder=0,
        label="voice",
    )


def _top(motions: Sequence[np.ndarray]) -> float:
    """What the curves are divided by: the largest value of all."""
    values = [float(np.nanmax(motion)) for motion in motions if np.isfinite(motion).any()]
    return max([*values, 1e-9])
