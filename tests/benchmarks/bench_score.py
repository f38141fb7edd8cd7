"""What scoring costs: the metrics of a model's outputs beside its forward pass and scikit-image.

    python tests/benchmarks/bench_score.py

Preset `small` with the weights that its seed draws, 10 + 10 frames of srivastava, batches of 64, as
`mmtrain evaluate` takes them. OpenSTL scores SSIM frame by frame by scikit-image, in one thread.
"""

from collections.abc import Iterator

import torch
from measure import CPU, FULL, Candidate, Row, Size, alternate, faster, print_table
from skimage.metrics import structural_similarity

import mmgen
from trainer.build import build_model
from trainer.config import load_config
from trainer.model import to_values
from trainer.scored import Gatherer
from trainer.world import pick_precision, product_dtype

FRAME = (64, 64)
BATCH = 64
CONTEXT = 10


def rows(size: Size) -> Iterator[Row]:
    torch.set_num_threads(1)
    config = load_config("small", assignments=[f"hidden={size.hidden}"])
    model = build_model(config.model, FRAME).eval()
    precision = pick_precision(config.run.precision, CPU)
    model.round_products(product_dtype(precision))
    count = size.sequences // 8
    frames = torch.from_numpy(mmgen.render("srivastava", count).frames)
    parts = [to_values(part) for part in frames.split(BATCH)]
    with torch.inference_mode():
        said = [model(part[:, :CONTEXT], CONTEXT) for part in parts]

    @torch.inference_mode()
    def forward() -> None:
        for part in parts:
            model(part[:, :CONTEXT], CONTEXT)

    @torch.inference_mode()
    def metrics() -> None:
        gatherer = Gatherer(FRAME)
        for part, decoded in zip(parts, said, strict=True):
            gatherer.add("reconstruction", decoded.reconstruction, part[:, :CONTEXT])
            gatherer.add("prediction", decoded.prediction, part[:, CONTEXT:])

    few = max(1, count // 16)
    pairs = list(
        zip(
            said[0].prediction[:few].reshape(-1, *FRAME).numpy(),
            parts[0][:few, CONTEXT:].reshape(-1, *FRAME).numpy(),
            strict=True,
        )
    )

    def by_frame() -> None:
        for one, other in pairs:
            structural_similarity(one, other, data_range=1.0)

    scored, passed, ssim = alternate(
        Candidate(metrics, count),
        Candidate(forward, count),
        Candidate(by_frame, few),
        rounds=size.rounds,
    )
    name, unit = "all six metrics of reconstruction and prediction", "ms a sequence"
    yield faster(name, scored, "scikit-image, SSIM of the prediction alone", ssim, unit)
    yield faster(name, scored, f"our forward pass, {precision}, which it follows", passed, unit)


if __name__ == "__main__":
    print_table(rows(FULL))
