"""A plain training step: forward and backward with weight gradients, no optimizer."""

from workload import BATCH, arguments, load, peak_mb, seconds, tell

folder, what = arguments()
assert what == "logging"
model, documents = load(folder)
model.train()


def step(ids):
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)


step(documents[:BATCH])  # warms up
took = seconds(lambda: [step(ids) for ids in documents.split(BATCH)])
tell(tokens_per_s=documents.numel() / took, bytes_a_passage=0, peak_mb=peak_mb())
