"""The whole road through the Python API, as a notebook would take it: run it in a folder that holds `photos/`."""

# %% Train
import edgekit

run = edgekit.train("photos", "efficientnet_lite0", weights="none", image_size=64, epochs=2, batch_size=8, name="api")
evaluation = edgekit.evaluate(run)
print(f"{evaluation.splits['test'].scores.top1:.1f} % of the test images")

# %% Export: INT8 files for both runtimes from one calibration
artifacts = edgekit.export(run, ["jetson", "desktop"])
for artifact in artifacts:
    print(artifact.name, artifact.precision)

# %% Measure here, and decide
rows = edgekit.benchmark(run, suite="quick", baselines=["pytorch"])
for row in rows:
    print(f"{row.artifact}: {row.top1:.1f} %, agreement {row.agreement}")
page = edgekit.report(run)
document = edgekit.report(run, "json")

# %% Classify
answers = edgekit.predict(run, ["photos/apple/000.png"], artifact="desktop/model.int8.onnx", top=1)
print(answers[0].top[0].label)

# %% Look back
measurements = edgekit.history(["api"])
edgekit.save_reference(run, "reference.json")
verdicts = edgekit.check(run, "reference.json")
comparisons = edgekit.diff("api/desktop/model.fp32.onnx", "api/desktop/model.int8.onnx")
