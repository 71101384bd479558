"""The OpenAPI document is true: schemathesis asks what it allows and what it forbids, and checks every answer."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 60
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
READ = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/catalogue",
    "/v1/catalogue/{network}/drawing",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}",
    "/v2/models/{name}/ready",
]
ASKED = ["/v1/models/{name}/predict", "/v1/models/{name}/explain", "/v2/models/{name}/infer"]
BY_CONTENT = ("/explain", "/infer")  # what no schema says decides: whether bytes are a picture, of which shape


@pytest.fixture(scope="session")
def document(running):
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [("GET", path, POSITIVE) for path in READ]
    + [("POST", path, mode) for path in ASKED for mode in (POSITIVE, NEGATIVE)],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_answer_is_one_that_the_document_describes(document, method, path, mode):
    operation = document[path][method]
    check = schemathesis.checks.CHECKS.get_one

    @given(data=st.data())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(data):
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if "name" in case.path_parameters and data.draw(st.booleans()):
            case.path_parameters["name"] = "colours"  # else no request finds a model
        response = case.call(timeout=60)
        excluded = [check("positive_data_acceptance")] if path.endswith(BY_CONTENT) else []
        if response.status_code == 413:  # too many pictures, which schemathesis does not take for a refusal
            excluded.append(check("negative_data_rejection"))
        case.validate_response(response, excluded_checks=excluded)

    ask()


def test_the_document_names_every_route_and_every_way_to_ask(client):
    found = client.get("/openapi.json").json()
    body = found["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]
    assert set(body) >= {"multipart/form-data", "application/json", "application/octet-stream"}
    assert len(found["paths"]) == 15
