"""The part that travels to the device: standard library, numpy and one runtime, Python 3.8 on.

Nothing here imports the rest of edgekit. ``python -m ondevice JOB.json`` runs one job; the desktop
baseline and every device go through the same loop in `measure`.
"""

# How the message begins that an engine was built for something else.
MISFIT = "the engine does not fit"
# And that an accelerator does not run the whole model.
NOT_ACCELERATED = "not accelerated as asked for"
