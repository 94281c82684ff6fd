"""Every number between the output of the networks and a box, with its unit and its origin.

There are three kinds of origins. `derived`: the number follows from something else. `fitted`: it
was measured on data. `chosen`: it was set by hand; the text names the experiment behind it, or says
"no experiment" if none is on record. Changing a number moves boxes, so also raise `METHOD_VERSION`
in `ctray.config.box_settings`. Numbers that users set are in `ctray.config` instead.

"Background deviations" are robust standard deviations of the voxels without sample. "Contrast" is
the absolute difference between a grey value and the medium's. Grey values of prepared volumes have
256 steps.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StretchParams:
    """From the certainty profile of the rotation task to a stretch of slices (`stretches`)."""

    background_fraction: float = 1 / 5
    """Fraction of the slices that count as background, the least certain first. Chosen: most of a
    volume is not sample."""
    mixed_background_fraction: float = 1 / 20
    """Fraction used instead if the deviation shows that the larger fraction contains sample. Chosen
    with `max_background_deviation`, for samples that span their axis."""
    least_background: tuple[int, int] = (2, 3)
    """Minimum number of slices for each of the two fractions. Derived: fewer slices have no
    deviation."""
    max_background_deviation: float = 0.05
    """Largest deviation of a background, in certainty. Empty slices are equally uncertain, so a
    larger deviation means that sample is included. Chosen with `mixed_background_fraction`."""
    max_background: float = 2.0
    """Largest plausible background, in multiples of chance (1 / classes). If the background is
    higher, the threshold is set to this level. Chosen: the network cannot be sure of empty slices,
    and a sample that spans its axis leaves no empty slice to measure."""
    max_threshold: float = 3.0
    """Upper limit of the threshold, in multiples of chance. Chosen, no experiment."""
    inside_percentile: float = 90.0
    """Percentile of a profile used as the level of its sample. Chosen, no experiment."""
    peak_percentile: float = 95.0
    """Percentile of a profile used as its peak. Chosen, no experiment."""
    face_inside_percentile: float = 75.0
    """Percentile of a stretch used as its inside level, for the confidence of its faces. Chosen,
    no experiment."""
    face_fraction: float = 1 / 16
    """Fraction of a stretch, at each end, that gives the confidence of a face. Chosen, no
    experiment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapParams:
    """From the dropout variance of the sorting task to an uncertainty map (`dropout_map`)."""

    plain_stride: int = 32
    """Pixels per superpixel if the setting asks for the last feature map. Derived: the paper's
    stride, bounded by the encoder's own."""
    mean_slices: int = 16
    """Maximum number of slices for the mean variance of a channel. Chosen, no experiment."""
    max_relative_variance: float = 10.0
    """Limit on a superpixel's variance, in multiples of its channel's mean. Chosen: no channel may
    dominate the others."""
    top_percentile: float = 99.9
    """Percentile of the map that gets the value 1. Chosen, no experiment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceParams:
    """From the log-odds profile of the self-trained network to faces (`profile_faces`)."""

    loose: float = 2.0
    """Distance below the threshold, in log-odds, of the outer end of the band in which a face may
    lie. Chosen, no experiment; margins are calibrated with it."""
    tight: float = 1.5
    """Distance above the threshold, in log-odds, of the inner end of that band. Chosen as
    `loose`."""
    max_vote: float = 4.0
    """Limit on the vote of one slice: its log-odds minus the threshold. A stretch of slices beyond
    a gap is sample if its votes add up to more than this limit and one slice is above `tight`. So a
    single sure slice far away is not sample. Chosen on calibration phantoms: one of 83 lost a
    specimen without it."""
    clear_distance: float = 40.0
    """Log-odds between the empty slices and the surest slice at which the threshold would be at the
    surest slice, without the next two limits. The fraction of the way grows with this distance: in
    a clearer scan, faces are steeper, and slices beside them have higher log-odds because of
    streaks or a bright medium. Chosen on calibration phantoms."""
    min_fraction: float = 0.2
    """Smallest fraction of that way. Chosen on calibration phantoms: faint ends have a low peak and
    need a low threshold."""
    max_fraction: float = 0.5
    """Largest fraction of that way. Chosen on calibration phantoms."""
    max_rise: float = 5.0
    """Largest distance of the threshold above the empty slices, in log-odds (150 to 1). A slice
    above it is sample even if other slices are much surer. Chosen: without it, thin parts of dense
    samples were cut, and two crops of the phantoms then called final lost a specimen."""
    stands_out: float = 2.0
    """Log-odds above the empty slices (7 to 1) from which a slice is not surely empty. Chosen on
    calibration phantoms in five trainings: scales that extend to such slices lose less in heads."""
    fewest_beyond: int = 4
    """Minimum number of slices beyond a face to measure the empty level there. Chosen, no
    experiment."""
    rounds: int = 3
    """Number of rounds in which face and threshold settle. Chosen, no experiment."""
    apart_weight: float = 0.25
    """Voxels added to the width of a face for each voxel between two estimates of its position: by
    the pretext task, the network or grey values. Chosen; margins are calibrated with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyParams:
    """From the grey values of a clear scan to faces (`grey_faces`)."""

    sigma: float = 0.6
    """Gaussian against noise, voxels. Derived: narrower than an edge."""
    half: float = 0.5
    """Fraction of the highest contrast next to a face at which the face lies. Derived: the half
    maximum of a blurred edge."""
    loose: float = 0.25
    """Fraction at which the rise of a face begins, for its width. Derived: a quarter."""
    tight: float = 0.75
    """Fraction at which that rise ends. Derived: three quarters."""
    window: int = 3
    """Side of the cube, in voxels, in which the highest contrast is searched. Derived: one voxel on
    each side."""
    edge: int = 2
    """Depth below the surface, in voxels, beyond which its usual contrast is measured. Higher
    contrast is capped at it, so that bone does not hide the skin on it. Chosen, no experiment."""
    min_medium: int = 1000
    """Minimum number of voxels of medium to measure it. Chosen, no experiment."""
    min_agreeing: int = 3
    """Number of the six faces that must agree with the network. Chosen: half of them."""
    agrees: float = 2.0
    """Largest distance between faces that agree, in voxels of the working level. Derived: the
    network places a face to within a slice or two."""
    min_own: float = 0.8
    """Fraction of a piece that must lie in a specimen's box for the piece to belong to it, if there
    are several specimens. Two specimens that touch are one piece, which belongs to neither. Chosen,
    no experiment."""
    around: float = 0.25
    """Width of the searched region around the box, as a fraction of the box. Chosen, no
    experiment."""
    min_around: int = 10
    """Minimum width of that region, voxels. Chosen, no experiment."""
    sure_fraction: float = 0.5
    """Fraction of the way from the empty slices to the surest slice above which a slice is sample,
    even if grey values disagree. Chosen: a tail may be too faint for the search by grey values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceParams:
    """Pieces that stand out from the medium of a clear scan, and which are sample (`pieces`)."""

    deviations: float = 4.0
    """Minimum contrast that stands out, in background deviations. Chosen, no experiment."""
    least: float = 1.0
    """Minimum contrast that stands out, in grey steps. Derived: one step of 256."""
    min_contrast: float = 0.02
    """Minimum contrast that stands out, as a fraction of the sample's largest contrast. Chosen, no
    experiment."""
    max_contrast: float = 0.25
    """Largest threshold, as the same fraction. A higher threshold would cut faint parts, so the
    scan is not clear. Chosen, no experiment."""
    num_thresholds: int = 16
    """Number of thresholds tried between the two, evenly spaced by logarithm. Chosen, no
    experiment."""
    top_percentile: float = 99.5
    """Percentile of the contrast in the box used as the largest contrast. Chosen, no experiment."""
    stray: float = 0.001
    """Fraction of the medium that may stand out by chance. Chosen, no experiment."""
    spill: float = 0.02
    """Fraction of the sample that may lie beyond the box. It allows a tail that was missed, but not
    a leak into a tube. Chosen, no experiment."""
    min_inside: float = 0.5
    """Fraction of a piece that must lie in the box for the piece to be sample. Chosen, no
    experiment."""
    min_voxels: int = 8
    """Minimum voxels of a piece; smaller pieces are specks. Chosen, no experiment."""
    min_size: float = 0.01
    """Minimum size of a piece, as a fraction of the largest piece; smaller pieces are specks.
    Chosen on a head: a paw of 1.5% was left out, and its face lay 21 voxels too far in."""
    bubble_size: float = 0.1
    """Fraction of the largest piece below which a piece of the opposite sign is a bubble. Chosen on
    tuning phantoms with bubbles: the error fell from 1.6% to 1.0% of the side."""
    bubble_lean: float = 0.3
    """Minimum ratio of the summed differences of the largest piece to their summed absolute values.
    Below it, the piece is neither clearly bright nor clearly dark. Chosen with `bubble_size`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenParams:
    """From evidence maps to several specimens (`specimens`)."""

    max_places: int = 128
    """Maximum number of places along the longest side of the grid that separates specimens. Chosen:
    these are single voxels of a small volume, because a map is sharper along its own axis than its
    cells are wide."""
    nothing: float = 0.1
    """Quantile of the cells used as the evidence of a cell without sample. Chosen, no
    experiment."""
    sample: float = 0.6
    """Fraction of the way from the background to the level of the sample beyond which a place is
    sample. Chosen, no experiment."""
    bridge: float = 0.5
    """Fraction of that way below which the space between two pieces is a gap. Chosen, no
    experiment."""
    gap: float = 4.0
    """Largest distance between pieces of one specimen, in voxels, if no gap separates them. Chosen,
    no experiment."""
    reach: float = 4.0
    """Distance in voxels within which a small piece joins the nearest specimen, even across a gap.
    Chosen, no experiment."""
    min_size: float = 0.03
    """Minimum size of a specimen, as a fraction of the largest specimen's places. Chosen, no
    experiment."""
    min_places: int = 8
    """Minimum number of places of a specimen. Chosen, no experiment."""
    margin: float = 2.0
    """Distance in voxels beyond a specimen's places within which its faces are searched. Chosen: a
    larger margin would include more of its neighbours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLookParams:
    """From grey values beyond a box to a box that has grown, or to a doubt (`last_look`)."""

    sigma: float = 0.8
    """Gaussian against noise, voxels. Chosen, no experiment."""
    blur: int = 1
    """Voxels by which this Gaussian moves a sharp edge outward at the threshold. Derived from
    `sigma`."""
    deviations: float = 6.0
    """Minimum contrast that stands out, in background deviations. Chosen, no experiment."""
    min_contrast: float = 0.02
    """Minimum contrast that stands out, as a fraction of the sample's largest contrast. As in
    `PieceParams`."""
    least: float = 1.0
    """Minimum contrast that stands out, in grey steps. Derived: one step of 256."""
    top_percentile: float = 99.0
    """Percentile of the contrast in the box used as the largest contrast. Chosen, no experiment."""
    lasting: float = 0.8
    """Fraction of the slices along z above which a place that stands out belongs to a tube or a
    bed. Chosen, no experiment."""
    min_voxels: int = 8
    """Minimum voxels of a piece beyond the box. As in `PieceParams`."""
    min_size: float = 5e-4
    """Minimum size of such a piece, as a fraction of the sample. Chosen, no experiment."""
    min_medium: int = 1000
    """Minimum number of voxels of medium to measure it. As in `GreyParams`."""
    plain_margin: float = 0.02
    """Margin as a fraction of the axis if the faces have no scales. Chosen, no experiment."""
    max_growth: float = 2.0
    """Largest growth of a box, as a multiple of the crop's voxels. A box that would have to grow
    more does not fit the sample, and a person has to look. Fitted on real heads after a short
    training: boxes grew to 1.6 times and then contained the head; one of them had lost 3% of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionParams:
    """From two boxes to a status (`decide`)."""

    sure: float = 0.5
    """Peak certainty along every axis above which the pretext task is not overruled. Chosen: a
    volume without sample rarely has such peaks along all three axes. Bubbles alone are not
    sample."""
    peak_relief: float = 1.0
    """Log-odds by which the minimum peak of the self-trained network is lowered if the pretext task
    is sure. Chosen: the peak of a faint sample can be lower than the peak of bubbles alone."""
    mostly: float = 0.5
    """Fraction of the network's box that must lie in the pretext task's box if grey values confirm
    the network; the network's box is then used. Derived: the larger part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalizeParams:
    """All numbers of the method after the networks, grouped by the module that uses them."""

    stretch: StretchParams = StretchParams()
    map: MapParams = MapParams()
    face: FaceParams = FaceParams()
    grey: GreyParams = GreyParams()
    piece: PieceParams = PieceParams()
    specimen: SpecimenParams = SpecimenParams()
    last_look: LastLookParams = LastLookParams()
    decision: DecisionParams = DecisionParams()


PARAMS = LocalizeParams()
