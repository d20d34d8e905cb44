"""What the benchmark is compared with: PyTorch and transformers, on demand.

Arguments: eager or compile, the number of threads, the dropout. Each line on
standard input is a request in JSON, each answer one line of JSON:

  {"do": "step", "rows": 4, "length": 128}      a training step on token ids: forward, cross entropy on a
                                                cls-pooled head, backward, clipping at norm 1, fused AdamW
  {"do": "product", "m": …, "n": …, "k": …, "trans_a": …, "trans_b": …, "batch": …, "repeat": …}
                                                a matrix product alone, on memory that is not in the cache
  {"do": "load", "dir": …, "batch": …}          open a text-classification pipeline
  {"do": "predict", "pairs": [[post, criterion], …]}
  {"do": "forget"}                              free the training model

"seconds" is what it took; "peak_gb" the most memory that the process held
during the request.
"""
import json
import sys
import time

import torch
import transformers
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model

mode, threads, dropout = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
torch.manual_seed(0)


class Classifier(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder = DebertaV2Model(config)
        self.head = nn.Sequential(nn.Linear(config.hidden_size, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 2))

    def forward(self, ids, mask, labels):
        cls = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return nn.functional.cross_entropy(self.head(cls), labels)


class Trainer:
    def __init__(self):
        config = DebertaV2Config(
            vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
            max_position_embeddings=512, hidden_act="gelu", hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, relative_attention=True, position_buckets=256,
            max_relative_positions=-1, pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm",
            position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7, pad_token_id=0)
        model = Classifier(config).train()
        self.call = torch.compile(model, dynamic=False) if mode == "compile" else model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.01, fused=True)

    def step(self, rows, length):
        shape = (rows, length)
        batch = torch.randint(5, 128100, shape), torch.ones(shape, dtype=torch.long), torch.randint(0, 2, (rows,))
        start = time.perf_counter()
        self.call(*batch).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def product(m, n, k, trans_a, trans_b, batch, repeat):
    def matrix(rows, columns, transposed):
        shape = (batch, columns, rows) if transposed else (batch, rows, columns)
        return torch.randn(shape).transpose(1, 2) if transposed else torch.randn(shape)

    # Operands rotate, so that each is cold when its turn comes, as in a step.
    count = max(1, min(repeat, 64 * 2**20 // (4 * batch * (m * k + k * n + m * n))))
    operands = [(matrix(m, k, trans_a), matrix(k, n, trans_b), torch.empty(batch, m, n)) for _ in range(count)]
    if batch == 1:
        operands = [(a[0], b[0], c[0]) for a, b, c in operands]
    run = torch.mm if batch == 1 else torch.bmm
    for a, b, c in operands:
        run(a, b, out=c)
    start = time.perf_counter()
    for i in range(repeat):
        a, b, c = operands[i % count]
        run(a, b, out=c)
    return (time.perf_counter() - start) / repeat


def reset_peak():
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak_gb():
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9


trainer = pipeline = None
batch_size = 1
for line in sys.stdin:
    request = json.loads(line)
    do = request.pop("do")
    reset_peak()
    seconds = 0.0
    if do == "step":
        trainer = trainer or Trainer()
        seconds = trainer.step(**request)
    elif do == "forget":
        trainer = None
    elif do == "product":
        seconds = product(**request)
    elif do == "load":
        batch_size = request["batch"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(request["dir"])
        model = transformers.AutoModelForSequenceClassification.from_pretrained(request["dir"]).eval()
        pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    elif do == "predict":
        pairs = [{"text": a, "text_pair": b} for a, b in request["pairs"]]
        start = time.perf_counter()
        pipeline(pairs, batch_size=batch_size, truncation=True, max_length=512)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb()}), flush=True)
