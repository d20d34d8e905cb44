"""A plain PyTorch loop, as a tutorial has it: transformers' DebertaV2Model with a head, torch's random sampler,
batches padded to their longest row, AdamW, transformers' schedule.

Each line on standard input is a request in JSON (see request in peer.go), each answer one line of JSON: the scores
after every epoch. "model" is a folder with the weights to start from, head included; "data" is a file with the token
ids, the labels and the weights of the classes.
"""
import json
import math
import sys

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModel, get_scheduler

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class Classifier(nn.Module):
    def __init__(self, folder, pooling, dropout):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.pooling = pooling
        weights = load_file(folder + "/model.safetensors")
        layers = []
        for k in range(sum(name.startswith("head.") for name in weights) // 2):
            if layers:
                layers += [nn.ReLU(), nn.Dropout(dropout)]
            rows, columns = weights[f"head.{k}.weight"].shape
            layers.append(nn.Linear(columns, rows))
            layers[-1].load_state_dict({x: weights[f"head.{k}.{x}"] for x in ("weight", "bias")})
        self.head = nn.Sequential(*layers)

    def forward(self, ids, mask):
        x = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        m = mask[:, :, None]
        if self.pooling == "cls":
            x = x[:, 0]
        elif self.pooling == "mean":
            x = (x * m).sum(1) / m.sum(1)
        else:
            x = x.masked_fill(m == 0, -torch.inf).max(1).values
        return self.head(x)


def collate(rows):
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    return ids, mask, torch.tensor([label for _, label in rows])


def groups(model, decay):
    """What decays, as transformers' Trainer decides: not biases, not LayerNorms."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    named = list(model.named_parameters())
    plain = [p for name, p in named if id(p) in norms or name.endswith("bias")]
    rest = [p for name, p in named if not (id(p) in norms or name.endswith("bias"))]
    return [{"params": rest, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def evaluate(model, loader, weights):
    model.eval()
    loss = total = 0.0
    confusion = [[0, 0], [0, 0]]
    for ids, mask, labels in loader:
        logits = model(ids, mask)
        loss += nn.functional.cross_entropy(logits, labels, weight=weights, reduction="sum").item()
        total += weights[labels].sum().item()
        for label, predicted in zip(labels.tolist(), logits.argmax(1).tolist()):
            confusion[label][predicted] += 1
    f1 = [2 * confusion[c][c] / max(1, 2 * confusion[c][c] + confusion[0][1] + confusion[1][0]) for c in (0, 1)]
    return loss / total, sum(f1) / 2


def train(r):
    torch.manual_seed(r["seed"])
    with open(r["data"]) as f:
        data = json.load(f)
    weights = torch.tensor(data["weights"])
    rows = {s: list(zip(data[s]["ids"], data[s]["labels"])) for s in ("train", "val", "test")}
    model = Classifier(r["model"], r["pooling"], r["head_dropout"])
    optimizer = torch.optim.AdamW(groups(model, r["weight_decay"]), lr=r["learning_rate"])
    batches = DataLoader(rows["train"], batch_size=r["batch_size"], shuffle=True, collate_fn=collate)
    steps = r["epochs"] * len(batches)
    schedule = get_scheduler(r["scheduler"], optimizer, math.ceil(r["warmup_ratio"] * steps), steps)
    held = {s: DataLoader(sorted(rows[s], key=lambda row: -len(row[0])), batch_size=64, collate_fn=collate) for s in ("val", "test")}
    scores = []
    for _ in range(r["epochs"]):
        model.train()
        for ids, mask, labels in batches:
            nn.functional.cross_entropy(model(ids, mask), labels, weight=weights).backward()
            nn.utils.clip_grad_norm_(model.parameters(), r["max_grad_norm"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        after = {}
        for s, loader in held.items():
            after[s + "_loss"], after[s + "_macro_f1"] = evaluate(model, loader, weights)
        scores.append(after)
    return scores


for line in sys.stdin:
    print(json.dumps(train(json.loads(line))), flush=True)
