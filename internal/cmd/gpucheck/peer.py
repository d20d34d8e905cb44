"""PyTorch's side of gpu-check. The only argument is a request in JSON; every answer is a line of JSON.

  {"do": "curve", "dir": …, "device": …, "amp": false}
      trains on the batches of dir/batches.safetensors from the weights of dir/model.safetensors, head included,
      and answers {"losses": […], "norms": […]}
  {"do": "speed", "mode": "eager", "dir": …, "device": …, "shapes": [[16, 256], …], "steps": 20, "warm": false}
      times steps on random tokens and answers, for each shape, {"rows", "length", "samples_per_s", "memory_gb"}
      or {"rows", "length", "error"}; warm: compile only, so that a later run finds it in the cache

A step is what our trainer does: forward, cross entropy, backward, clipping at norm 1, AdamW without decay of
biases and LayerNorms. Mode is eager, compile, or disentangled-flash if that package is there.
"""
import gc
import json
import os
import sys
import time

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model

request = json.loads(sys.argv[1])
device = request["device"]
cuda = device == "cuda"
transformers.logging.set_verbosity_error()
if not cuda:
    torch.set_num_threads(1)  # a rehearsal: threads that wait for each other beside other work crawl


def answer(**what):
    print(json.dumps(what), flush=True)


class Classifier(nn.Module):
    """The encoder, its first token's state, a hidden layer of 256 with ReLU, two classes."""

    def __init__(self, config, dropout):
        super().__init__()
        self.deberta = DebertaV2Model(config)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.ModuleList([nn.Linear(config.hidden_size, 256), nn.Linear(256, 2)])

    def forward(self, ids, mask, labels):
        x = self.deberta(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        x = self.head[1](self.dropout(torch.relu(self.head[0](x))))
        return nn.functional.cross_entropy(x.float(), labels)


def build(dropout):
    with open(os.path.join(request["dir"], "config.json")) as f:
        config = json.load(f)
    del config["criteria_head"]
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    with torch.device(device):
        return Classifier(DebertaV2Config(**config), dropout).train()


class Trainer:
    def __init__(self, model, call, rate, amp):
        self.call, self.amp, self.parameters = call, amp, list(model.parameters())
        plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
        kept = {id(p) for p in plain}
        decayed = [p for p in self.parameters if id(p) not in kept]
        self.optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
                                           lr=rate, fused=True)

    def step(self, batch):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.amp):
            loss = self.call(*batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), norm


def curve():
    model = build(0.0)
    weights = load_file(os.path.join(request["dir"], "model.safetensors"))
    missing, unknown = model.load_state_dict(weights, strict=False)
    if missing or unknown:
        raise ValueError(f"the weights lack {missing} and have {unknown} in addition")
    trainer = Trainer(model, model, request["rate"], request["amp"])
    batches = load_file(os.path.join(request["dir"], "batches.safetensors"))
    losses, norms = [], []
    for ids, mask, labels in zip(batches["ids"], batches["mask"], batches["labels"]):
        loss, norm = trainer.step([t.to(device) for t in (ids, mask, labels)])
        losses.append(loss.item())
        norms.append(norm.item())
    answer(losses=losses, norms=norms)


def wait():
    if cuda:
        torch.cuda.synchronize()


def memory_gb():
    """What of the device's memory is in use, by whomever: the meter of our side, too."""
    if not cuda:
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def speed_of(rows, length):
    torch.manual_seed(0)
    model = build(request["dropout"])
    call = model
    if request["mode"] == "compile":
        call = torch.compile(model, dynamic=False)
    elif request["mode"] == "disentangled-flash":
        import disentangled_flash
        disentangled_flash.optimize_deberta_training(model.deberta, backend="triton", assume_unpadded=True)
    trainer = Trainer(model, call, 1e-5, True)
    vocabulary = model.deberta.config.vocab_size
    batch = (torch.randint(5, vocabulary, (rows, length), device=device), torch.ones(rows, length, dtype=torch.long, device=device),
             torch.randint(0, 2, (rows,), device=device))
    for _ in range(1 if request["warm"] else 5 if cuda else 1):
        trainer.step(batch)
    wait()
    if request["warm"]:
        return {}
    start = time.perf_counter()
    for _ in range(request["steps"]):
        trainer.step(batch)
    wait()
    seconds = time.perf_counter() - start
    return {"samples_per_s": rows * request["steps"] / seconds, "memory_gb": memory_gb()}


def speed():
    torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in fp32, as on our side
    for rows, length in request["shapes"]:
        try:
            answer(rows=rows, length=length, **speed_of(rows, length))
        except Exception as e:  # one shape that fails is a result, not the end
            answer(rows=rows, length=length, error=f"{type(e).__name__}: {e}".splitlines()[0][:200])
        torch.compiler.reset()
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()


if cuda and not torch.cuda.is_available():
    sys.exit("PyTorch sees no GPU")
{"curve": curve, "speed": speed}[request["do"]]()
