"""Code that is sent to devices: standard library, numpy and one runtime; Python 3.8 and newer.

Nothing here imports the rest of edgekit. ``python -m ondevice JOB.json`` runs one job. The desktop baseline and all
devices are measured by the same loop, in `measure`.
"""

# Beginning of the error for an engine that was built for something else.
MISFIT = "the engine does not fit"
# Beginning of the error for a model that an accelerator does not run completely.
NOT_ACCELERATED = "not accelerated as asked for"
