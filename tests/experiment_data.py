"""A tiny experiment: two variants, on an endless stream and on nine sequences, two seeds."""

LIVE = "live:srivastava?canvas=30&frames=8&seed=3"
STEPS, BATCH, FIXED = 6, 4, 9
TEXT = f"""
title = "Does it matter?"
preset = "tutorial"
set = {{ device = "cpu", hidden = 4, batch_size = {BATCH}, context = 4, predict = 3, \
steps = {STEPS}, eval_every = 2, checkpoint_every = 2, eval_sequences = 5 }}
seeds = [0, 1]
metrics = ["prediction.mse", "reconstruction.mse"]
sequences = 7

[variants.Both]
dropout = 0.0
[variants."only the future"]
decoders = "predict"

[data.endless]
train = "{LIVE}"
[data."9 fixed"]
train = "{LIVE}"
fixed = {FIXED}
"""


def changed(old, new):
    """Return the file with something else in one place; => is an end of line."""
    old, new = old.replace("=>", "\n"), new.replace("=>", "\n")
    assert old in TEXT
    return TEXT.replace(old, new)
