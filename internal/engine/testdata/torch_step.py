"""A training step of DeBERTa-v2 in PyTorch and transformers, on demand.

The step is what our engine does: forward, cross entropy on a cls-pooled head
with one hidden layer of 256, backward, clipping at norm 1.0, fused AdamW. The
weights are random. Each line on standard input is "ROWS LENGTH"; the answer is
one line of JSON with the seconds of one step and the peak memory so far.
"""
import json
import resource
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


config = DebertaV2Config(
    vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
    max_position_embeddings=512, hidden_act="gelu", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    relative_attention=True, position_buckets=256, max_relative_positions=-1, pos_att_type=["p2c", "c2p"],
    share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0,
    layer_norm_eps=1e-7, pad_token_id=0)
model = Classifier(config).train()
call = torch.compile(model) if mode == "compile" else model
parameters = list(model.parameters())
optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.01, fused=True)
batches = {}

for line in sys.stdin:
    shape = tuple(map(int, line.split()))
    if shape not in batches:
        batches[shape] = (torch.randint(5, 128100, shape), torch.ones(shape, dtype=torch.long), torch.randint(0, 2, shape[:1]))
    start = time.perf_counter()
    call(*batches[shape]).backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}), flush=True)
