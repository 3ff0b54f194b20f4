"""Kronfluence: EK-FAC of every weight of the same layers, empirical Fisher, its own heuristics.

Reads ``agreement/`` or ``lds/`` of the workload (a model, documents, queries, layers), writes
``scores-kronfluence.npy``.
"""

import time

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch.nn.functional import cross_entropy
from workload import arguments, load_model, load_task, tell


class Language(Task):
    def __init__(self, names):
        super().__init__()
        self.names = names

    def compute_train_loss(self, batch, model, sample=False):
        ids, labels, mask = batch.unbind(1)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)

    def get_attention_mask(self, batch):
        return batch[:, 2]

    def get_influence_tracked_modules(self):
        return self.names


class Rows(torch.utils.data.Dataset):
    def __init__(self, array):
        self.array = torch.from_numpy(array)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return self.array[i]


def main():
    folder, what, _ = arguments()
    folder = folder / what
    names = (folder / "layers.txt").read_text().split()
    task = Language(names)
    model = prepare_model(load_model(folder), task)
    documents, queries = map(Rows, load_task(folder))
    analyzer = Analyzer("a", model, task, cpu=True, disable_tqdm=True, output_dir=str(folder))
    begun = time.perf_counter()
    factors = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    analyzer.fit_all_factors(
        "f", documents, per_device_batch_size=16, factor_args=factors, overwrite_output_dir=True
    )
    analyzer.compute_pairwise_scores(
        "s", "f", queries, documents, 8, per_device_train_batch_size=16,
        score_args=ScoreArguments(damping_factor=None), overwrite_output_dir=True,
    )  # fmt: skip
    took = time.perf_counter() - begun
    scores = analyzer.load_pairwise_scores("s")["all_modules"]
    np.save(folder / "scores-kronfluence.npy", scores.float().numpy())
    tell(seconds=took)


main()
