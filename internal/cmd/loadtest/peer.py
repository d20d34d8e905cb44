"""A minimal server as one would write it in Python: FastAPI, transformers and
PyTorch, one request at a time in FastAPI's thread pool.

    python peer.py MODEL_DIR HOST:PORT
"""

import json
import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from safetensors.torch import load_file
from transformers import DebertaV2Model, PreTrainedTokenizerFast

directory, address = sys.argv[1:]

config = json.load(open(f"{directory}/config.json"))
weights = load_file(f"{directory}/model.safetensors")
encoder = DebertaV2Model.from_pretrained(directory).eval()
depth = len(config["criteria_head"]["hidden_dims"])
activation = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}[config["criteria_head"]["activation"]]
assert config["criteria_head"]["pooling_strategy"] == "cls"
tokenizer = PreTrainedTokenizerFast(
    tokenizer_file=f"{directory}/tokenizer.json", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
)

app = FastAPI()


class Pair(BaseModel):
    post: str
    criterion: str


@app.get("/healthz")
def health():
    return {"status": "ok"}


@app.post("/v1/predict")
def predict(pair: Pair):
    with torch.inference_mode():
        inputs = tokenizer(pair.post, pair.criterion, truncation=True, max_length=512, return_tensors="pt")
        x = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[:, 0]
        for layer in range(depth + 1):
            x = torch.nn.functional.linear(x, weights[f"head.{layer}.weight"], weights[f"head.{layer}.bias"])
            if layer < depth:
                x = activation(x)
        probability = torch.softmax(x, dim=-1)[0, 1].item()
    return {"probability": probability, "label": probability > 0.5}


host, port = address.rsplit(":", 1)
uvicorn.run(app, host=host, port=int(port), log_level="warning", access_log=False)
