"""Photo to identity on a real server: encoded once, saved and loaded, and told off early."""

import time

import pytest
from fpga.commands.queue.outcome import Outcome
from fpga.devtools.client import PromptError, api_node

NUM_PROMPTS = 100


def graph(width: int = 256, **encode) -> dict:
    """A person from a photo in a cast; the cast, behind the encoding, is another one for every width."""
    settings = {"name": "Eileen", "face": "largest", "index": 1, "combine": "mean", "drop_outliers": False}
    inputs = {"images.photo_1": ["photo", 0], "face_analysis": ["analysis", 0], **settings, **encode}
    pack = {"pack": "buffalo_l", "provider": "auto", "download_if_missing": False}
    places = {"height": 256, "assign": "order", "grow": 0.1, "feather": 0.1, "strengths": ""}
    return {
        "photo": api_node("LoadImage", image="portrait_photo.png"),
        "analysis": api_node("FPGA_LoadFaceAnalysis", **pack),
        "encode": api_node("FPGA_EncodeIdentity", **inputs),
        "cast": api_node("FPGA_MakeCast", **{"identities.identity_1": ["encode", 0]}, width=width, **places),
        "show": api_node("PreviewImage", images=["cast", 1]),
    }


def finished(client, prompt: dict) -> dict:
    """Queues a graph and waits for its entry in the server's history."""
    return waited_for(client, client.queue(prompt))


def waited_for(client, prompt_id: str) -> dict:
    deadline = time.monotonic() + 120
    while prompt_id not in (history := client.get(f"/history/{prompt_id}").json()):
        assert time.monotonic() < deadline, "the queue does not end"
        time.sleep(0.1)
    assert history[prompt_id]["status"]["status_str"] == "success", history[prompt_id]["status"]["messages"]
    return history[prompt_id]


def cached_nodes(entry: dict) -> set[str]:
    """Nodes of a finished graph that did not have to run."""
    return set(dict(entry["status"]["messages"])["execution_cached"]["nodes"])


def test_queueing_a_hundred_prompts_encodes_once(client):
    queued = [client.queue(graph(width=256 + 8 * i, name="encoded once")) for i in range(NUM_PROMPTS)]
    cached = [cached_nodes(waited_for(client, prompt_id)) for prompt_id in queued]
    assert sum("cast" in nodes for nodes in cached) == 0
    assert sum("encode" in nodes for nodes in cached) == NUM_PROMPTS - 1
    assert sum("analysis" in nodes for nodes in cached) >= NUM_PROMPTS - 1  # an earlier test may have loaded it
    renamed = cached_nodes(finished(client, graph(name="someone else")))
    assert "encode" not in renamed and "analysis" in renamed


def test_a_saved_identity_is_listed_and_gives_the_same_person(client):
    saving = graph(name="Zoë 佐伊")
    saving["save"] = api_node("FPGA_SaveIdentity", identity=["encode", 0], filename_prefix="identities/zoe")
    finished(client, saving)
    listed = client.object_info()["FPGA_LoadIdentity"]["input"]["required"]["file"]
    file = next(name for name in str(listed).split("'") if name.startswith("zoe_"))
    loading = graph()
    loading["encode"] = api_node("FPGA_LoadIdentity", file=file)
    del loading["photo"], loading["analysis"]
    assert finished(client, loading)["outputs"]["encode"]["text"][0].startswith("Zoë 佐伊: 1 photo\nembeddings: ")
    assert "encode" in cached_nodes(finished(client, loading))


def test_what_is_missing_is_told_before_anything_runs(client):
    lonely = graph()
    del lonely["encode"]["inputs"]["face_analysis"]
    with pytest.raises(PromptError, match="nothing to encode with"):
        client.run(lonely)


def test_the_photo_without_the_face_is_named_on_the_node(client):
    with pytest.raises(PromptError, match=r"FPGA_EncodeIdentity: .*photo 1 shows 1 face\(s\), but index is 2"):
        client.run(graph(face="index", index=2))


def test_a_missing_pack_says_where_its_files_belong(client):
    missing = graph()
    missing["analysis"]["inputs"]["pack"] = "antelopev2"
    with pytest.raises(PromptError, match=r"FPGA_LoadFaceAnalysis: .*download_if_missing.*scrfd_10g_bnkps\.onnx"):
        client.run(missing)


def test_good_pictures_are_saved_and_the_queue_sees_when_there_are_none(client):
    """If Keep Alike keeps nothing, what follows does not run. That is not an error, and the queue finds no picture."""

    def judged(pictures: str, threshold: float) -> tuple[dict, Outcome]:
        scored = {"image": [pictures, 0], "cast": ["encode", 0], "face_analysis": ["analysis", 0]}
        choice = {"image": [pictures, 0], "scores": ["scores", 0], "score": "likeness", "threshold": threshold}
        prompt = graph(name="judged") | {
            "grey": api_node("EmptyImage", width=256, height=256, batch_size=1, color=0x808080),
            "both": api_node("ImageBatch", image1=["photo", 0], image2=["grey", 0]),
            "scores": api_node("FPGA_ScorePictures", **scored),
            "keep": api_node("FPGA_KeepAlike", **choice),
            "saved": api_node("SaveImage", images=["keep", 0], filename_prefix="kept"),
            "aside": api_node("PreviewImage", images=["keep", 1]),
        }
        del prompt["cast"], prompt["show"]
        entry = finished(client, prompt)
        return entry["outputs"], Outcome.of(entry)

    outputs, outcome = judged("both", 0.9)
    assert outputs["keep"]["text"][0].startswith("kept 1 of 2: 1\n")
    assert [len(outputs[node]["images"]) for node in ("saved", "aside")] == [1, 1]
    assert len(outcome.pictures) == 1 and outcome.scores["likeness"] == pytest.approx(0.5, abs=0.01)
    outputs, outcome = judged("both", -1)
    assert len(outputs["saved"]["images"]) == 2 and "aside" not in outputs
    outputs, outcome = judged("grey", 0.9)
    assert "nothing is sent on" in outputs["keep"]["warnings"][0] and "saved" not in outputs
    assert outcome.pictures == () and outcome.error is None and outcome.scores["likeness"] == 0
