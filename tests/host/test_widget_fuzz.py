"""Prompts with random, extreme and wrong values in the pack's widgets: an error of a node of ours always has a name.

`FUZZED_PROMPTS=2000 python dev.py test tests/host/test_widget_fuzz.py` runs as many as that.
"""

import json
import os
import sys
import time
from collections import Counter
from random import Random

import pytest
import requests
from shipped_workflows import NAMES, smaller

NUM_PROMPTS = int(os.environ.get("FUZZED_PROMPTS", "60"))
LARGEST = 64
"""Of the whole numbers that are drawn: a picture of 16,384 pixels is a fair wish, but costs minutes and gigabytes."""

NEVER_CHANGED = {"download_if_missing"}
"""The tests use no network."""

RESTORING = "FPGA_RestoreFaces"
RESTORING_SHARE = 0.05
HOSTILE_NUMBERS = (float("nan"), float("inf"), float("-inf"), -1, 1e30, "1", "x", None, [], True)
HOSTILE_TEXTS = ("", " ", "\x00", "../../etc", "né 人" * 50, "1,2,x", "nan, inf", "[" * 200, "%d %s {0}", None, 5, {})


def widget_values(spec: list, random: Random) -> list:
    """Returns what to set a widget to: values that it allows, and values that it does not."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind in ("INT", "FLOAT"):
        least, most = options.get("min", 0), options.get("max", 1)
        drawn = (
            random.uniform(least, most) if kind == "FLOAT" else random.randint(least, max(min(most, LARGEST), least))
        )
        allowed = [drawn, least, options.get("default", least), most if most <= LARGEST else drawn]
        return [random.choice(allowed), random.choice(allowed), random.choice(HOSTILE_NUMBERS)]
    if kind == "BOOLEAN":
        return [True, False, "maybe", None]
    if kind == "STRING":
        return [options.get("default", ""), random.choice(HOSTILE_TEXTS), "1, 0.5", "someone"]
    choices = options.get("options") if kind == "COMBO" else kind if isinstance(kind, list) else None
    return [*choices, *choices, "no such choice"] if choices else []


def upstream(prompt: dict, node_id: str) -> dict:
    """Returns a node with everything that it depends on."""
    kept, waiting = {}, [node_id]
    while waiting:
        current = waiting.pop()
        if current not in kept and current in prompt:
            kept[current] = prompt[current]
            waiting += [link[0] for link in prompt[current]["inputs"].values() if isinstance(link, list) and link]
    return kept


def fuzzed(prompt: dict, info: dict, random: Random) -> dict:
    """Returns one of the pack's nodes with its upstream, some widgets of the pack's nodes changed, and a preview."""
    prompt = json.loads(json.dumps(prompt))
    ours = [key for key, node in prompt.items() if node["class_type"].startswith("FPGA_")]
    cheap = [key for key in ours if RESTORING not in {node["class_type"] for node in upstream(prompt, key).values()}]
    target = random.choice(ours if not cheap or random.random() < RESTORING_SHARE else cheap)
    graph = upstream(prompt, target)
    near = [target, target, *(key for key in graph if key in ours)]
    for _ in range(random.choice((1, 1, 2, 3))):
        key = random.choice(near)
        node, described = graph[key], info[graph[key]["class_type"]]["input"]
        specs = {**described.get("required", {}), **described.get("optional", {})}
        name = random.choice(sorted(specs.keys() - NEVER_CHANGED))
        values = widget_values(specs[name], random)
        if values:
            node["inputs"][name] = random.choice(values)
        elif name in node["inputs"] and random.random() < 0.3:
            del node["inputs"][name]
        elif random.random() < 0.1:
            node["inputs"][name] = random.choice([[key, 99], 0.5, 5, "text", None])
    graph["preview"] = {"class_type": "PreviewAny", "inputs": {"source": [target, 0]}}
    return graph


def outcome(client, graph: dict) -> tuple[str, dict]:
    """Queues a graph and waits for it. Returns "ran", "refused" or the class of the error, and the server's message."""
    body = json.dumps({"prompt": graph, "client_id": client.client_id})  # requests refuses NaN, which JSON lacks
    headers = {"Content-Type": "application/json"}
    reply = requests.post(f"{client.address}/prompt", data=body, headers=headers, timeout=60)
    if not reply.ok:
        assert reply.status_code == 400, f"{reply.status_code}: {reply.text[:2000]}"
        return "refused", {}
    prompt_id, deadline = reply.json()["prompt_id"], time.monotonic() + 240
    while prompt_id not in (history := client.get(f"/history/{prompt_id}").json()):
        assert time.monotonic() < deadline, f"no answer to {body}"
        time.sleep(0.02)
    for kind, message in history[prompt_id]["status"]["messages"]:
        if kind == "execution_error":
            return message["exception_type"], message
    return "ran", {}


@pytest.mark.timeout(max(300, 6 * NUM_PROMPTS))
def test_errors_of_our_nodes_are_named_whatever_the_widgets_hold(client):
    random, info = Random(12), client.object_info()
    prompts = [smaller(name) for name in NAMES]
    outcomes: Counter[str] = Counter()
    unnamed = []
    for number in range(NUM_PROMPTS):
        graph = fuzzed(random.choice(prompts), info, random)
        kind, message = outcome(client, graph)
        outcomes[kind] += 1
        if message and message["node_type"].startswith("FPGA_") and not kind.startswith("fpga_portrait."):
            where = "".join(message["traceback"][-3:])
            given = graph.get(message["node_id"], {}).get("inputs")
            said = f"{message['node_type']} {kind}: {message['exception_message']}"
            unnamed.append(f"prompt {number}: {said}{where}{given}")
            sys.stdout.write(f"{unnamed[-1]}\n")  # with -s, as soon as it is known
        if number % 100 == 99:
            client.clear_history()
            sys.stdout.write(f"{number + 1} prompts: {dict(outcomes)}, {len(unnamed)} unnamed\n")  # with -s
            sys.stdout.flush()
    assert unnamed == [], "\n\n".join(unnamed)
    assert outcomes["ran"] and outcomes["refused"]
