"""How far the values of a series depend on the ones before: what decides how much it tells."""

from __future__ import annotations

import math

import numpy as np

# Of the automatic bandwidth (Politis & White 2004, section 3.2): how many lags in a row must be silent.
_SILENT_LAGS = 5
# The farthest lag that is looked at, in square roots of the length.
_FARTHEST = 5
_Z = 1.959964
_MANY, _ANGLES = 30, 2001


def ranks(values: np.ndarray) -> np.ndarray:
    """float64 (n,) ranks from 1, equal values share theirs: what outliers cannot pull."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """float64 (lags + 1,), from lag 0; nothing but zeros behind it where all values are equal."""
    length = len(values)
    found = np.zeros(lags + 1)
    found[0] = 1.0
    if length < 2:
        return found
    centred = np.asarray(values, np.float64) - np.mean(values)
    size = 1 << (2 * length - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    sums = np.fft.irfft(spectrum * spectrum.conj(), size)[: min(length, lags + 1)]
    if sums[0] > 1e-12 * length * max(1.0, float(np.mean(values)) ** 2):
        found[: len(sums)] = sums / sums[0]
    return found


def farthest_lag(length: int) -> int:
    """Beyond which dependence is not looked for."""
    return max(1, min(length // 3, math.ceil(_FARTHEST * math.sqrt(length))))


def memory(correlations: np.ndarray, length: int) -> int:
    """After how many lags a series of `length` has forgotten: 0 is none, at most `farthest_lag`.

    The smallest m behind which five autocorrelations lie within 2 sqrt(log10(n) / n) (Politis & White 2004, "Automatic
    block-length selection for the dependent bootstrap", Econometric Reviews 23; corrected in 28, 2009).
    """
    most = farthest_lag(length)
    if length < 2 * _SILENT_LAGS:
        return 0
    silent = np.abs(correlations[1:]) < 2 * math.sqrt(math.log10(length) / length)
    for lag in range(most):
        if silent[lag : lag + _SILENT_LAGS].all():
            return lag
    return most


def lags_of(length: int) -> int:
    """How many autocorrelations `memory` and `inefficiency` want of a series."""
    return 2 * farthest_lag(length) + _SILENT_LAGS


def inefficiency(values: np.ndarray, least_memory: int = 0) -> float:
    """So many values of the series tell as much of its mean as one independent value would; at least 1.

    1 + 2 sum of autocorrelations in the flat-top lag window (Politis & Romano 1995) twice as wide as the memory. Its
    own error makes intervals too short: it is widened for the degrees of freedom that the window leaves, n / window.

    Args:
        least_memory: what is known of the memory from elsewhere.
    """
    length = len(values)
    correlations = autocorrelation(values, lags_of(length))
    lag = max(least_memory, memory(correlations, length))
    if lag == 0:
        return 1.0
    window = 2 * lag
    steps = np.arange(1, window + 1)
    weights = np.minimum(1, 2 * (1 - steps / window))
    excess = 2 * float((weights * correlations[1 : window + 1]).sum())
    freedom = length / window
    # Centring on the series' own mean takes the share `window / length` of every autocorrelation away.
    wider = (student(max(2.0, freedom)) / _Z) ** 2 / max(0.1, 1 - 1 / freedom) ** 2
    return 1 + wider * max(0.0, excess)


def student(freedom: float) -> float:
    """The 97.5 % quantile of Student's t with at least one degree of freedom, whole or not, within 0.1 %.

    Below 30 by the area under the density, which is a power of the cosine of arctan(t / sqrt(freedom)); from there on
    by the expansion in 1 / freedom (Abramowitz & Stegun 26.7.5).
    """
    if freedom < _MANY:
        angles = np.linspace(0, math.pi / 2, _ANGLES)
        heights = np.cos(angles) ** (freedom - 1)
        areas = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
        return math.sqrt(freedom) * math.tan(float(np.interp(0.95 * areas[-1], areas, angles)))
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
