"""A plain training step: forward and backward with weight gradients, no optimizer."""

from workload import arguments, by_length, load_documents, load_model, padded, seconds, tell_logging

folder, what, lengths = arguments()
assert what == "logging"
model = load_model(folder).train()
documents, budget = load_documents(folder, lengths)
batches = by_length(documents, budget)


def step(batch):
    ids, labels, mask = padded([documents[i] for i in batch])
    model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)


step(batches[0])  # warms up
tell_logging(documents, seconds(lambda: [step(batch) for batch in batches]), 0)
