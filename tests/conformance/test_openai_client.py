"""A served model as OpenAI's own Python client sees it; run by run.sh."""

import concurrent.futures
import os

import openai
import pytest

MODEL = os.environ["CONFORMANCE_MODEL"]
# Without its second sentence this small model is at a loss: by a hair it answers in French.
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def client():
    return openai.OpenAI(
        base_url=os.environ["CONFORMANCE_URL"] + "/v1", api_key="none", max_retries=0, timeout=180
    )


def chat(client, **arguments):
    defaults = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    return client.chat.completions.create(**(defaults | arguments))


def test_lists_its_model(client):
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_answers_a_chat(client):
    answer = chat(client)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.choices[0].message.role == "assistant"
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_follows_a_conversation(client):
    answer = chat(client, messages=[
        {"role": "system", "content": "You are a helpful assistant."},
        *QUESTION,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
    ])
    assert answer.choices[0].message.content


def test_text_may_come_in_parts(client):
    parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France? Answer in one sentence."}]
    assert chat(client, messages=[{"role": "user", "content": parts}]).choices[0].message.content


def test_streams_the_same_answer(client):
    whole = chat(client).choices[0].message.content
    chunks = list(chat(client, stream=True))
    assert len(chunks) > 2
    assert all(chunk.object == "chat.completion.chunk" and chunk.id == chunks[0].id for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_streams_the_usage_when_asked(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stops_at_max_tokens(client):
    for limit in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 3}):
        answer = chat(client, **limit)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_stops_at_a_stop_string(client, stream):
    answer = chat(client, stop=["Paris"], stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert reason == "stop"
    assert "Paris" not in text


def test_a_seed_repeats_an_answer(client):
    def sample(seed):
        return chat(client, seed=seed, temperature=1, top_p=0.95).choices[0].message.content

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_completes_a_text(client):
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert answer.object == "text_completion"
    assert "Paris" in answer.choices[0].text
    pieces = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == answer.choices[0].text


def test_answers_many_at_once(client):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: chat(client, max_tokens=8).choices[0].message.content, range(8)))
    assert len(set(answers)) == 1


def test_survives_a_client_that_leaves(client):
    for _ in range(3):
        stream = chat(client, stream=True, max_tokens=500)
        next(iter(stream))
        stream.close()
    assert chat(client).choices[0].message.content


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError) as failure:
        chat(client, model="nobody")
    assert failure.value.code == "model_not_found"
    assert "nobody" in failure.value.message


@pytest.mark.parametrize("arguments", [
    {"messages": []},
    {"messages": [{"role": "nobody", "content": "x"}]},
    {"temperature": -1},
    {"top_p": 1.5},
    {"max_tokens": -1},
    {"max_tokens": 0},
    {"stop": ["a"] * 100},
    {"messages": [{"role": "user", "content": "word " * 100_000}]},
])
def test_bad_requests_are_named(client, arguments):
    with pytest.raises(openai.BadRequestError) as failure:
        chat(client, **arguments)
    assert failure.value.type == "invalid_request_error"
    assert failure.value.message
