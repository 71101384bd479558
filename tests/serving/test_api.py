"""What a client gets: models, cards, answers in order with an error where a picture is bad, heat maps, figures."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import taxonet
from taxonet.weights.networks import open_model, save_network

PREDICT = "/v1/models/quick/predict"


def labels(answers):
    return [answer["predictions"][0]["label"] if answer["predictions"] else None for answer in answers]


def test_the_models_are_called_by_their_files_stems(client):
    found = client.get("/v1/models").json()
    assert [(one["name"], one["variant"], one["classes"], one["explains"]) for one in found] == [
        ("colours", "densenet_bc_22_12", 3, True),
        ("quick", "densenet_bc_22_12", 3, False),
    ]


def test_a_card_says_all_that_the_bundle_says(client, small_bundle):
    card = client.get("/v1/models/colours").json()
    info = taxonet.load(small_bundle, "torch").info
    assert card["classes"] == list(info.classes)
    assert card["preprocessing"] == info.preprocessing
    assert card["input_size"] == [32, 32, 3]
    assert card["paper"]["arxiv"] == "1608.06993"
    assert card["family"] == "densenet"
    assert card["calibration"] == {"temperature": 1.0, "threshold": None}
    assert card["engine"] == "openvino"
    _, network = open_model(small_bundle)
    assert card["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_every_form_of_body_gets_the_answer_of_predict(client, small_bundle, png):
    data = png("green", 5)
    expected = taxonet.load(small_bundle, "openvino").predict(data)[0].as_dict()
    bodies = [
        {"content": data, "headers": {"content-type": "image/png"}},
        {"content": data, "headers": {"content-type": "application/octet-stream"}},
        {"content": data, "headers": {"content-type": "application/x-www-form-urlencoded"}},  # what curl says by itself
        {"files": {"files": ("a.png", data)}},
        {"files": {"file": ("a.png", data)}},
        {"json": {"images": [base64.b64encode(data).decode()]}},
        {"json": {"images": ["data:image/png;base64," + base64.b64encode(data).decode()]}},
        {"json": {"images": [{"name": "a.png", "data": base64.b64encode(data).decode()}]}},
    ]
    for model in ("colours", "quick"):
        for body in bodies:
            response = client.post(f"/v1/models/{model}/predict", **body)
            assert response.status_code == 200
            (answer,) = response.json()
            assert answer["path"] in (None, "a.png")
            assert [one["label"] for one in answer["predictions"]] == [one["label"] for one in expected["predictions"]]
            found, wanted = ([one["probability"] for one in a["predictions"]] for a in (answer, expected))
            assert found == pytest.approx(wanted, abs=1e-4)
            assert set(answer["timing"]) == {"wait", "decode", "network"}


def test_many_files_keep_their_order_and_a_bad_one_costs_only_itself(client, png, broken_jpeg, huge_png):
    order = ["red", "blue", "green"] * 7
    files = [("files", (f"{i}.png", png(colour, i))) for i, colour in enumerate(order)]
    files.insert(4, ("files", ("broken.jpg", broken_jpeg.read_bytes())))
    files.insert(9, ("files", ("huge.png", huge_png.read_bytes())))
    files.insert(11, ("files", ("empty.png", b"")))
    answers = client.post(PREDICT, files=files).json()
    assert [answer["path"] for answer in answers] == [name for _, (name, _) in files]
    assert [label for label in labels(answers) if label] == order
    errors = {answer["path"]: answer["error"] for answer in answers if answer["error"]}
    assert set(errors) == {"broken.jpg", "huge.png", "empty.png"}
    assert "pixels" in errors["huge.png"]


def test_top_threshold_and_preview_from_the_address_or_beside_the_pictures(client, png):
    data = png("red")
    assert [
        len(client.post(PREDICT, params={"top": top}, content=data).json()[0]["predictions"]) for top in (1, 2, 9)
    ] == [
        1,
        2,
        3,
    ]
    sure, unsure = (client.post(PREDICT, params={"threshold": t}, content=data).json()[0] for t in (0, 1))
    assert (sure["abstained"], unsure["abstained"]) == (False, True)
    assert unsure["predictions"] == sure["predictions"]
    (answer,) = client.post(
        PREDICT, files={"files": ("a.png", data)}, data={"top": "1", "threshold": "1", "preview": "true"}
    ).json()
    assert (len(answer["predictions"]), answer["abstained"]) == (1, True)
    seen = Image.open(io.BytesIO(base64.b64decode(answer["preview"].partition(",")[2])))
    assert seen.size == (32, 32)


def test_the_threshold_of_the_bundle_is_obeyed(serve, small_bundle, png, tmp_path):
    info, network = open_model(small_bundle)
    save_network(tmp_path / "strict.safetensors", replace(info, threshold=1.0, temperature=2.0), network)
    server = serve(tmp_path / "strict.safetensors", "--workers", 1, "--engine", "torch", "--drain", 0)
    (answer,) = server.client.post("/v1/models/strict/predict", content=png("red")).json()
    expected = taxonet.load(tmp_path / "strict.safetensors", "torch").predict(png("red"))[0]
    assert answer["abstained"]
    assert answer["predictions"][0]["probability"] == pytest.approx(expected.predictions[0].probability, abs=1e-5)


@pytest.mark.parametrize(
    ("address", "body", "status", "sentence"),
    [
        ("/v1/models/quik/predict", {"content": b"x"}, 404, "there is no model 'quik'; did you mean 'quick'?"),
        ("/v1/models/quick/predit", {"content": b"x"}, 404, "there is nothing at /v1/models/quick/predit"),
        (PREDICT, {"content": b""}, 400, "the body is empty, it must be a picture"),
        (PREDICT, {"content": b"x", "headers": {"content-type": "text/csv"}}, 415, "the content type is 'text/csv'"),
        (PREDICT, {"json": {"images": []}}, 400, "the request has no pictures"),
        (PREDICT, {"json": {"pictures": []}}, 400, 'the JSON must be an object with "images"'),
        (PREDICT, {"json": {"images": ["?"]}}, 400, "images[0] is not base64"),
        (PREDICT, {"json": {"images": ["AAAA"], "topp": 3}}, 400, "there is no option 'topp'"),
        (PREDICT, {"json": {"images": ["AAAA"], "top": "many"}}, 422, "top must be a whole number"),
        (
            PREDICT,
            {"files": {"picture": ("a.png", b"x")}},
            400,
            "the form has a field 'picture', pictures stand in 'files'",
        ),
        (PREDICT + "?top=0", {"content": b"x"}, 422, "top is '0'"),
        (PREDICT + "?threshold=2", {"content": b"x"}, 422, "threshold is '2'"),
        (
            PREDICT,
            {"content": b"--a", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "the multipart body is",
        ),
    ],
)
def test_a_wrong_request_is_a_problem_of_one_sentence(client, address, body, status, sentence):
    response = client.post(address, **body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"].startswith(sentence)
    assert "\n" not in problem["detail"]


@pytest.mark.parametrize(
    ("address", "content", "headers", "status"),
    [
        (PREDICT, b'{"images": ["AAAA"], "\\ud800": 1}', {"content-type": "application/json"}, 400),
        (PREDICT + "?topp=1", b"x", {}, 422),
        (PREDICT, b'{"images": [{"nmae": "a", "data": "AAAA"}]}', {"content-type": "application/json"}, 400),
        (PREDICT, b'{"images": ["AAAA"], "top": 2.5}', {"content-type": "application/json"}, 422),
        (PREDICT, b'{"images": ["AAAA"], "preview": "yes"}', {"content-type": "application/json"}, 422),
        ("/v2/models/quick/infer", b'{"inputs": [{"name": "\\ud800"}]}', {}, 400),
        ("/v2/models/quick/infer", b"{}", {"inference-header-content-length": "1" * 5000}, 400),
    ],
)
def test_what_is_odd_is_refused_and_no_failure(client, address, content, headers, status):
    response = client.post(address, content=content, headers=headers)
    assert response.status_code == status
    assert response.json()


def test_an_id_that_is_no_text_comes_back(client, png):
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(png("red")).decode()]}
    body = json.dumps({"id": "\ud800", "inputs": [image]})
    assert client.post("/v2/models/quick/infer", content=body).json()["id"] == "\ud800"


def test_head_is_get_without_a_body(client):
    for address in ("/", "/healthz", "/readyz", "/v1/models"):
        response = client.head(address)
        assert (response.status_code, response.content) == (200, b"")


def test_another_method_is_refused(client):
    response = client.get(PREDICT)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["detail"] == "GET is not for this address"


def test_a_heat_map_is_a_picture_of_what_the_network_saw(client, png):
    for method in ("gradcam", "occlusion"):
        response = client.post("/v1/models/colours/explain", params={"method": method}, content=png("red"))
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (32, 32)
    of_blue = client.post("/v1/models/colours/explain", params={"target": "blue"}, content=png("red"))
    assert of_blue.status_code == 200


@pytest.mark.parametrize(
    ("model", "params", "content", "sentence"),
    [
        ("quick", {}, None, "quick is an export, which has no gradients"),
        ("colours", {"target": "gren"}, None, "the model has no class 'gren'; did you mean 'green'?"),
        ("colours", {"layer": "blok1"}, None, "the network has no stage 'blok1'"),
        ("colours", {"method": "gradcan"}, None, "method is 'gradcan'"),
        ("colours", {}, b"no picture", "the picture cannot be read: it is a text file"),
    ],
)
def test_what_cannot_be_explained(client, png, model, params, content, sentence):
    response = client.post(f"/v1/models/{model}/explain", params=params, content=content or png("red"))
    assert response.status_code == 422
    assert response.json()["detail"].startswith(sentence)


def test_health_and_figures(client, png):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    client.post(PREDICT, files=[("files", ("a.png", png("red"))), ("files", ("b.png", b"text"))])
    text = client.get("/metrics").text
    for line in (
        'taxonet_requests_total{route="/v1/models/{name}/predict",status="200"}',
        'taxonet_stage_seconds_bucket{le="0.01",model="quick",stage="decode"}',
        'taxonet_batch_size_count{model="quick"}',
        'taxonet_errors_total{kind="picture"}',
        'taxonet_queue_depth{model="quick"} 0.0',
        "taxonet_workers_ready 2.0",
    ):
        assert line in text


def test_the_catalogue_has_every_network(client):
    found = client.get("/v1/catalogue").json()
    assert {one["name"] for one in found["networks"]} == set(taxonet.list_models())
    assert all(family["paper"]["title"] and family["idea"] for family in found["families"])
    drawing = client.get("/v1/catalogue/densenet121/drawing")
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert drawing.text.startswith("<svg")
    assert client.get("/v1/catalogue/densenet12/drawing").status_code == 404


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for address in ("/", "/page.js", "/v1/models", "/nothing"):
        headers = client.get(address).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_names_with_odd_letters_come_back(client, png):
    names = ["Füße 😀.png", 'a"b.png', "../../etc/passwd", "x" * 400 + ".png"]
    answers = client.post(
        PREDICT, json={"images": [{"name": n, "data": base64.b64encode(png("red")).decode()} for n in names]}
    )
    assert [answer["path"] for answer in answers.json()] == ["Füße 😀.png", 'a"b.png', "passwd", "x" * 255]


def test_prepared_pixels_give_probabilities_of_the_open_inference_protocol(running, colour_classifier, png):
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(running.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("quick")
    metadata = client.get_model_metadata("quick")
    assert [one["name"] for one in metadata["inputs"]] == ["image", "pixels"]
    data = [png(colour, 3) for colour in ("green", "red", "blue")]
    pixels = np.stack([colour_classifier.preprocessing.pixels(one) for one in data])
    encoded = np.array(data, dtype=object)
    expected = colour_classifier.predict_proba(data)
    for name, value, kind in (("pixels", pixels, "UINT8"), ("image", encoded, "BYTES")):
        for binary in (True, False):
            if kind == "BYTES" and not binary:
                continue  # Triton's client cannot put bytes that are no text into JSON
            given = triton.InferInput(name, list(value.shape), kind)
            given.set_data_from_numpy(value, binary_data=binary)
            for out in (True, False):
                wanted = [triton.InferRequestedOutput(o, binary_data=out) for o in ("probabilities", "label", "index")]
                answer = client.infer("quick", [given], outputs=wanted, request_id="7")
                assert answer.get_response()["id"] == "7"
                assert answer.as_numpy("probabilities") == pytest.approx(expected, abs=1e-4)
                assert answer.as_numpy("index").tolist() == [1, 0, 2]
                assert [_text(one) for one in answer.as_numpy("label")] == ["green", "red", "blue"]
    client.close()


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ({"name": "imag", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}, "there is no input 'imag'"),
        (
            {"name": "image", "shape": [2], "datatype": "BYTES", "data": ["AAAA"]},
            "image has 1 elements, its shape says 2",
        ),
        ({"name": "image", "shape": [1], "datatype": "FP32", "data": [1]}, "the datatype of image must be BYTES"),
        ({"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}, "image[0] cannot be read: "),
        (
            {"name": "pixels", "shape": [1, 3, 32, 32], "datatype": "UINT8", "data": []},
            "the shape of pixels must be [n, 32",
        ),
        ({"name": "pixels", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [300] * 3072}, "the data of pixels"),
    ],
)
def test_a_wrong_inference_request_is_an_error_of_the_protocol(client, tensor, sentence):
    response = client.post("/v2/models/quick/infer", json={"inputs": [tensor]})
    assert response.status_code == 400
    assert response.json()["error"].startswith(sentence)
    assert client.post("/v2/models/quik/infer", json={}).status_code == 404


def test_the_curl_of_the_readme_gets_json_of_the_form_of_predict(client, png):
    (answer,) = json.loads(client.post(PREDICT, files={"files": ("photo.png", png("blue"))}).text)
    assert {"path", "predictions", "error"} <= set(answer)
    assert {"label", "index", "probability"} == set(answer["predictions"][0])
