"""Every number between the output of the networks and a box, with its unit and its origin.

Origins are of three kinds. `derived`: follows from something else. `fitted`: measured on data.
`chosen`: set by hand; the text names the experiment where one decided, and "no experiment" where
none is on record. A change of a number moves boxes: raise `METHOD_VERSION` in
`ctray.config.box_settings` with it. Numbers that users set are in `ctray.config` instead.

"Background deviations" are robust standard deviations of what is no sample. "Contrast" is the
absolute difference of a grey value from the medium's. Grey values of prepared volumes have 256
steps.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StretchParams:
    """Certainty profile of the rotation task to a stretch of slices (`stretches`)."""

    background_fraction: float = 1 / 5
    """Fraction of the slices, the least certain ones, that are background. Chosen: most of a volume
    is not sample."""
    mixed_background_fraction: float = 1 / 20
    """The same where the deviation shows that the larger fraction holds sample. Chosen with
    `max_background_deviation`: samples that span their axis."""
    least_background: tuple[int, int] = (2, 3)
    """Slices of either fraction, at least. Derived: fewer have no deviation."""
    max_background_deviation: float = 0.05
    """Certainty. Empty slices are equally uncertain: a larger deviation is not theirs alone.
    Chosen, as `mixed_background_fraction`."""
    max_background: float = 2.0
    """Multiples of chance (1 / classes). A background above it is not believed, and the threshold
    is there instead. Chosen: the network cannot be sure of nothing; samples that span their axis
    leave no empty slice to measure."""
    max_threshold: float = 3.0
    """Multiples of chance that the threshold never exceeds. Chosen, no experiment."""
    inside_percentile: float = 90.0
    """Percentile of a profile that is the level of its sample. Chosen, no experiment."""
    peak_percentile: float = 95.0
    """Percentile of a profile that is its peak. Chosen, no experiment."""
    face_inside_percentile: float = 75.0
    """Percentile of a stretch that is its inside level, for the confidence of its faces. Chosen,
    no experiment."""
    face_fraction: float = 1 / 16
    """Fraction of a stretch whose outermost slices tell the confidence of a face. Chosen, no
    experiment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapParams:
    """Dropout variance of the sorting task to an uncertainty map (`dropout_map`)."""

    plain_stride: int = 32
    """Pixels a superpixel where the setting asks for the last feature map. Derived: the paper's
    stride, bounded by the encoder's own."""
    mean_slices: int = 16
    """Slices that the mean variance of a channel is taken from, at most. Chosen, no experiment."""
    max_relative_variance: float = 10.0
    """Multiples of its channel's mean that count of one superpixel. Chosen: no channel speaks for
    all."""
    top_percentile: float = 99.9
    """Percentile of the map that has the value 1. Chosen, no experiment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceParams:
    """Log-odds profile of the self-trained network to faces (`profile_faces`)."""

    loose: float = 2.0
    """Log-odds below the threshold where the band ends in which a face may lie. Chosen, no
    experiment; margins are calibrated with it."""
    tight: float = 1.5
    """Log-odds above the threshold where that band begins. Chosen as `loose`."""
    max_vote: float = 4.0
    """Log-odds from the threshold that one slice counts for at most. A stretch of slices beyond a
    gap is sample if it counts for more, and has a slice above `tight`: a single sure slice far away
    is no sample. Chosen on calibration phantoms: one of 83 lost a specimen without it."""
    clear_distance: float = 40.0
    """Log-odds from the empty slices to the surest slice at which faces lie all of the way up, but
    for the next two numbers. The clearer a scan, the steeper its faces, and the higher what streaks
    or a bright medium leave beside them. Chosen on calibration phantoms."""
    min_fraction: float = 0.2
    """Least fraction of that way. Chosen on calibration phantoms: faint ends need a low threshold,
    and have a low peak."""
    max_fraction: float = 0.5
    """Largest fraction of that way. Chosen on calibration phantoms."""
    max_rise: float = 5.0
    """Log-odds above the empty slices (150 to 1) that a face lies at most: such a slice is sample
    however sure others are. Chosen: thin parts of dense samples were cut, two crops of the phantoms
    then called final lost a specimen."""
    stands_out: float = 2.0
    """Log-odds above the empty slices (7 to 1) from which a slice is not surely empty. Chosen on
    calibration phantoms in five trainings: scales that reach that far lose less in heads."""
    fewest_beyond: int = 4
    """Slices beyond a face that tell the empty level there, at least. Chosen, no experiment."""
    rounds: int = 3
    """Rounds in which face and threshold settle. Chosen, no experiment."""
    apart_weight: float = 0.25
    """Voxels of width that a face gains per voxel between its places by two ways: the pretext task,
    the network, grey values. Chosen; margins are calibrated with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyParams:
    """Grey values of a clear scan to faces (`grey_faces`)."""

    sigma: float = 0.6
    """Gaussian against noise, voxels. Derived: less than an edge is wide."""
    half: float = 0.5
    """Fraction of the highest contrast next to it at which a face lies. Derived: the half maximum
    of a blurred edge."""
    loose: float = 0.25
    """Fraction at which the rise of a face begins, for its width. Derived: a quarter."""
    tight: float = 0.75
    """Fraction at which that rise ends. Derived: three quarters."""
    window: int = 3
    """Voxels of the cube in which the highest contrast is looked for. Derived: one voxel around."""
    edge: int = 2
    """Voxels below its surface where the sample has its usual contrast: nothing counts as higher,
    so that bone does not hide the skin on it. Chosen, no experiment."""
    min_medium: int = 1000
    """Voxels of medium that are needed to know it. Chosen, no experiment."""
    min_agreeing: int = 3
    """Faces of six that must lie where the network has them. Chosen: half of them."""
    agrees: float = 2.0
    """Voxels of the working level within which a face does. Derived: the
    network knows a face to a slice or two."""
    min_own: float = 0.8
    """Fraction of a piece in the box of one of several specimens that makes it that one's. Two that
    touch are one piece, and nobody's. Chosen, no experiment."""
    around: float = 0.25
    """Fraction of the box around it that is looked at. Chosen, no experiment."""
    min_around: int = 10
    """Voxels around the box that are looked at, at least. Chosen, no experiment."""
    sure_fraction: float = 0.5
    """Fraction of the way from the empty slices to the surest one above which a slice is sample
    whatever grey values say. Chosen: a tail may be fainter than they are told to look for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceParams:
    """What stands out from the medium of a clear scan, and what of it is sample (`pieces`)."""

    deviations: float = 4.0
    """Background deviations that stand out, at least. Chosen, no experiment."""
    least: float = 1.0
    """Grey steps that stand out, at least. Derived: one step of 256."""
    min_contrast: float = 0.02
    """Fraction of the sample's largest contrast that stands out, at least. Chosen, no
    experiment."""
    max_contrast: float = 0.25
    """The same at most: above it faint parts would be cut, and the scan is not clear. Chosen, no
    experiment."""
    num_thresholds: int = 16
    """Thresholds tried between the two, evenly by their logarithm. Chosen, no experiment."""
    top_percentile: float = 99.5
    """Percentile of the contrast in the box that is the largest. Chosen, no experiment."""
    stray: float = 0.001
    """Fraction of the medium that may stand out by chance. Chosen, no experiment."""
    spill: float = 0.02
    """Fraction of the sample that may lie beyond the box: a tail that was missed, but no leak into
    a tube. Chosen, no experiment."""
    min_inside: float = 0.5
    """Fraction of a piece in the box that makes it sample. Chosen, no experiment."""
    min_voxels: int = 8
    """Voxels that a piece has at least; others are specks. Chosen, no experiment."""
    min_size: float = 0.01
    """Fraction of the largest piece that a piece has at least; others are specks. Chosen on a head:
    a paw of 1.5% was left out,
    and its face lay 21 voxels too far in."""
    bubble_size: float = 0.1
    """Fraction of the largest piece below which a piece of the opposite sign is a bubble. Chosen on
    tuning phantoms with bubbles: the error fell from 1.6% to 1.0% of the side."""
    bubble_lean: float = 0.3
    """Sum of the largest piece's differences as a fraction of their amounts, from which it is
    bright or dark rather than both. Chosen with `bubble_size`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenParams:
    """Evidence maps to several specimens (`specimens`)."""

    max_places: int = 128
    """Places along the longest side of the grid on which specimens are told apart. Chosen: single
    voxels of a small volume, since a map is sharper along its own axis than its cells are wide."""
    nothing: float = 0.1
    """Quantile of the cells that is what a cell shows where there is nothing. Chosen, no
    experiment."""
    sample: float = 0.6
    """Fraction of the way from the background to the level of the sample beyond which a place is
    sample. Chosen, no experiment."""
    bridge: float = 0.5
    """Fraction of that way below which the space between two pieces is a gap. Chosen, no
    experiment."""
    gap: float = 4.0
    """Voxels between pieces of one specimen, at most, where the way between them is no gap. Chosen,
    no experiment."""
    reach: float = 4.0
    """Voxels within which a small piece joins the nearest specimen whatever lies between. Chosen,
    no experiment."""
    min_size: float = 0.03
    """Fraction of the largest specimen's places that a specimen has at least. Chosen, no
    experiment."""
    min_places: int = 8
    """Places that a specimen has at least. Chosen, no experiment."""
    margin: float = 2.0
    """Voxels beyond its places within which its faces are looked for. Chosen: a map shows more of
    what lies beside them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLookParams:
    """Grey values beyond a box to a box that has grown, or to a doubt (`last_look`)."""

    sigma: float = 0.8
    """Gaussian against noise, voxels. Chosen, no experiment."""
    blur: int = 1
    """Voxels by which that carries a sharp edge over the threshold. Derived from `sigma`."""
    deviations: float = 6.0
    """Background deviations that stand out, at least. Chosen, no experiment."""
    min_contrast: float = 0.02
    """Fraction of the sample's largest contrast that stands out, at least. As in `PieceParams`."""
    least: float = 1.0
    """Grey steps that stand out, at least. Derived: one step of 256."""
    top_percentile: float = 99.0
    """Percentile of the contrast in the box that is the largest. Chosen, no experiment."""
    lasting: float = 0.8
    """Fraction of the slices in which what stands out at one place is the same in all: a tube or a
    bed. Chosen, no experiment."""
    min_voxels: int = 8
    """Voxels of a piece beyond the box that counts. As in `PieceParams`."""
    min_size: float = 5e-4
    """Fraction of the sample that such a piece has at least. Chosen, no experiment."""
    min_medium: int = 1000
    """Voxels of medium that are needed to know it. As in `GreyParams`."""
    plain_margin: float = 0.02
    """Fraction of the axis that is the margin where no face tells its scale. Chosen, no
    experiment."""
    max_growth: float = 2.0
    """Multiple of the crop's voxels that a box may grow to; one that would have to grow more does
    not fit the sample, and a person has to look. Fitted on real heads after a short training: boxes
    grew to 1.6 times and then held the head, of which one had lost 3%."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionParams:
    """Two boxes to a status (`decide`)."""

    sure: float = 0.5
    """Certainty of a slice along every axis with which the pretext task is not overruled. Chosen:
    what is no sample is rarely sure along all three; bubbles alone are no sample."""
    peak_relief: float = 1.0
    """Log-odds that the self-trained network may be less sure where the pretext task is. Chosen:
    faint samples reach less than bubbles alone may."""
    mostly: float = 0.5
    """Fraction of a box of clear faces that lies in the pretext task's box, to stand alone.
    Derived: the larger part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalizeParams:
    """All numbers of the method after the networks, by the module that uses them."""

    stretch: StretchParams = StretchParams()
    map: MapParams = MapParams()
    face: FaceParams = FaceParams()
    grey: GreyParams = GreyParams()
    piece: PieceParams = PieceParams()
    specimen: SpecimenParams = SpecimenParams()
    last_look: LastLookParams = LastLookParams()
    decision: DecisionParams = DecisionParams()


PARAMS = LocalizeParams()
