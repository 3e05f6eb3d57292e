"""Many prompts in one batch: the answers of each alone, from few compiled programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prompt_tuning
from prompt_tuning import Example, Predictor
from prompt_tuning.checkpoints.frozen.weights import load_weights
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.predictor import EmptyExample, UnknownPrompt
from prompt_tuning.models.decoding import DecodingOptions
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.t5 import T5

pytestmark = pytest.mark.usefixtures("compile_once")

LENGTHS = {"one": 1, "three": 3, "eight": 8, "long": 20}
LABELS = ("entailment", "not_entailment", "choice1")


@pytest.fixture(scope="module")
def base(tiny_weights_file, tiny_vocabulary_file):
    """A random T5 whose buckets of distance differ much, and its vocabulary."""
    config, params, _ = load_weights(tiny_weights_file)
    bias = params["encoder"]["relpos_bias"]
    bias["rel_embedding"] = bias["rel_embedding"] * 10
    return config, params, Vocabulary(tiny_vocabulary_file)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=(n, 16)).astype(np.float32) for name, n in LENGTHS.items()}


@pytest.fixture(scope="module")
def predictor(base, prompts):
    return Predictor(
        *base,
        prompts=prompts,
        batch_size=4,
        max_input_length=16,
        decoding=DecodingOptions(max_length=6),
    )


@pytest.fixture(scope="module")
def mixture(tiny_superglue):
    """Examples of every prompt and of lengths from none to too long, shuffled."""
    texts = [line for file in sorted(tiny_superglue.glob("*/val.jsonl")) for line in file.open()]
    rng = np.random.default_rng(2)
    return [
        Example(prompt=str(rng.choice(list(LENGTHS))), inputs=text[: rng.integers(30)])
        for text in texts[:24]
    ]


def test_a_mixture_is_answered_as_each_alone(predictor, mixture):
    together = predictor.predict(mixture)
    assert together == [predictor.predict([example])[0] for example in mixture]
    assert len({answer.text for answer in together}) > 5, "else nothing could be mixed up"


def test_ranked_labels_of_a_mixture_score_as_each_alone(predictor, mixture):
    ranked = [dataclasses.replace(example, labels=LABELS) for example in mixture[:8]]
    together = predictor.predict([*ranked, *mixture[:4]])
    assert together[8:] == predictor.predict(mixture[:4])
    for example, answer in zip(ranked, together, strict=False):
        (alone,) = predictor.predict([example])
        assert list(answer.scores) == list(LABELS)
        np.testing.assert_allclose(
            list(answer.scores.values()), list(alone.scores.values()), rtol=1e-5
        )
        assert answer.text == max(LABELS, key=answer.scores.__getitem__) == alone.text


def test_in_a_batch_of_one_shape_company_changes_no_bit(predictor, mixture):
    """Rounding depends on the shape of a batch alone, not on what else is in it."""
    one = Example(prompt="long", inputs="a b c d", labels=LABELS)
    others = [
        Example(prompt=name, inputs=inputs, labels=LABELS)
        for name, inputs in zip([*LENGTHS, "eight", "one"], "a b c d e f".split(), strict=True)
    ]
    scores = []
    for start in (0, 3):
        three = others[start : start + 3]
        scores += [predictor.predict([one, *three])[0], predictor.predict([*three, one])[-1]]
    assert all(answer.scores == scores[0].scores for answer in scores)


def test_filling_up_on_the_left_keeps_distances(base):
    """The encoder sees what it sees without filling, beyond the largest distance too."""
    config, params, _ = base
    tokens = jnp.asarray([[5, 6, 7, 8, 9, 1]])
    prompt = np.random.default_rng(3).normal(size=(1, 150, 16)).astype(np.float32)

    @jax.jit
    def encode(prompt, mask):
        injection = Injection(encoder_prompt=prompt, encoder_prompt_mask=mask)
        return T5(config).apply({"params": params}, tokens, injection, method=T5.encode)

    def filled(left, right):
        filling = ((0, 0), (left, right))
        mask = np.pad(np.ones((1, 150), bool), filling)
        encoded = encode(np.pad(prompt, (*filling, (0, 0))), mask)
        return encoded.outputs[0, encoded.mask[0]]

    alone = filled(0, 0)
    assert alone.shape == (156, 16)
    np.testing.assert_allclose(filled(10, 0), alone, atol=1e-5)
    # The random biases differ enough for this test to fail: on the right it would be wrong.
    assert np.abs(filled(0, 10) - alone).max() > 0.1


@pytest.fixture
def compilations():
    """Counts XLA's compilations: a list that grows by one at each."""
    events = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_is_compiled_twice(base, prompts, compilations):
    """One program a shape, whatever texts, prompts and lengths share it, and in later calls."""
    predictor = Predictor(
        *base,
        prompts=prompts,
        batch_size=4,
        max_input_length=16,
        # A length that no other test decodes to: nothing is compiled yet.
        decoding=DecodingOptions(max_length=5),
    )
    rng = np.random.default_rng(0)

    def ask(longest_prompt, rows, pieces):
        names = [name for name, length in LENGTHS.items() if length <= longest_prompt]
        examples = [
            Example(prompt=str(rng.choice(names)), inputs="a " * int(rng.integers(pieces)))
            for _ in range(rows)
        ]
        predictor.predict(examples)

    ask(8, 3, 5)
    assert len(compilations) == len(predictor.shapes) == 1
    for rows in (3, 4):
        for pieces in (1, 5, 8):
            ask(8, rows, pieces)
    predictor.add("new", prompts["three"][:2])
    predictor.predict([Example(prompt="new", inputs="a b c")] * 3)
    assert len(compilations) == 1, "within a bucket of lengths nothing is compiled"
    for _ in range(3):
        ask(20, 8, 16)
    assert 1 < len(compilations) == len(predictor.shapes) <= 2


def test_labels_of_any_number_and_length_compile_few_programs(base, prompts, compilations):
    """A client who ranks ever other labels makes the server compile no more than four times."""
    longest = 11  # no other test ranks labels of this length
    predictor = Predictor(
        *base,
        prompts=prompts,
        batch_size=1,
        max_input_length=16,
        decoding=DecodingOptions(max_length=longest),
    )
    vocabulary = base[2]
    words = ["a " * n + letter for n in range(3) for letter in "bcdefghijklmn"]
    lengths = set()
    for number in (1, 2, 3, 4, 5, 7, 9, 16):
        for repeats in range(1, 8):
            labels = (*words[: number - 1], ("the " * repeats).strip())
            length = vocabulary.encode_labels(labels).shape[1]
            if length <= longest:
                lengths.add((number, length))
                (answer,) = predictor.predict([Example(prompt="one", inputs="a", labels=labels)])
                assert list(answer.scores) == list(labels)
    assert len(lengths) > 20
    assert len(compilations) == len(predictor.shapes) <= 4


def test_a_label_scores_the_same_among_few_and_many(predictor):
    one = Example(prompt="three", inputs="a b", labels=("entailment",))
    many = dataclasses.replace(one, labels=("entailment", *"abcdefg"))
    (alone,), (among,) = predictor.predict([one]), predictor.predict([many])
    np.testing.assert_allclose(alone.scores["entailment"], among.scores["entailment"], rtol=1e-5)
    assert len(among.scores) == 8


@pytest.mark.slow
def test_beam_search_answers_as_each_alone(base, prompts, mixture):
    options = DecodingOptions(max_length=4, method="beam", beam_size=2)
    predictor = Predictor(*base, prompts=prompts, max_input_length=16, decoding=options)
    examples = mixture[:3]
    assert predictor.predict(examples) == [predictor.predict([e])[0] for e in examples]


def test_prompts_come_and_go_without_touching_what_is_prepared(predictor, prompts):
    predictor.add("passing", prompts["three"])
    example = Example(prompt="passing", inputs="a b")
    expected = predictor.predict([example])
    prepared = predictor.prepare(example)
    predictor.add("passing", -prompts["three"])
    changed = predictor.prepare(example)
    predictor.remove("passing")
    assert "passing" not in predictor.prompts
    assert predictor.run([prepared]) == expected
    assert np.array_equal(changed.prompt.injection.encoder_prompt[0], -prompts["three"])


def test_long_inputs_are_cut_and_said_to_be(predictor):
    text = " ".join(["a"] * 15)
    assert len(predictor.vocabulary.encode(text)) == 15
    whole = predictor.prepare(Example(prompt="one", inputs=text))
    cut = predictor.prepare(Example(prompt="one", inputs=text + " b"))
    assert whole.ids.tolist() == cut.ids.tolist() == [*predictor.vocabulary.encode(text), 1]
    assert not whole.truncated and cut.truncated
    (answer,) = predictor.run([cut])
    assert answer.truncated


def test_nothing_asked_nothing_answered(predictor):
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "thre"}, "Unknown prompt 'thre'. Did you mean 'three'"),
        ({"prompt": "x"}, "Unknown prompt 'x'. The loaded prompts are eight, long, one, three"),
        ({"labels": ("a", "b", "a")}, "have a duplicate"),
        ({"labels": (" ".join(["entailment"] * 9),)}, "answers have at most 6"),
        ({"labels": ("¿",)}, "The label '¿' becomes"),
    ],
)
def test_wrong_examples_are_told(predictor, changes, message):
    example = dataclasses.replace(Example(prompt="one", inputs="a"), **changes)
    with pytest.raises(UserError, match=message) as raised:
        predictor.predict([example])
    assert isinstance(raised.value, UnknownPrompt) == ("prompt" in changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": {"p": np.ones((3, 17))}}, r"'p' has shape \[3, 17\]; expected \[length, 16\]"),
        ({"prompts": {"p": np.ones((0, 16))}}, r"'p' has shape \[0, 16\]"),
        ({"prompts": {"p": np.full((2, 16), np.nan)}}, "'p' has values that are NaN"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_options_are_told(base, options, message):
    with pytest.raises(UserError, match=message):
        Predictor(*base, **options)


def test_the_package_has_it_by_name():
    assert prompt_tuning.Predictor is Predictor
    assert not hasattr(prompt_tuning, "Predicator")


def test_what_is_sampled_depends_on_the_seed_and_the_number_alone(base, prompts):
    options = DecodingOptions(max_length=6, method="sample")

    def answers(examples, seed=0):
        predictor = Predictor(
            *base, prompts=prompts, max_input_length=16, decoding=options, seed=seed
        )
        return [answer.text for answer in predictor.predict(examples)]

    same = [Example(prompt="three", inputs="a b")] * 3
    first = answers(same)
    assert len(set(first)) > 1 and first != answers(same, seed=1)
    # The second and third in another company: the number of each stays.
    others = [Example(prompt="long", inputs="the bird sees a dog"), *same[1:]]
    assert answers(others)[1:] == first[1:]


def test_a_prompt_may_have_a_task_and_labels_of_its_own(base, prompts):
    """Rows are its task's, and its labels are ranked without padding, however long they are."""
    predictor = Predictor(*base, max_input_length=24, decoding=DecodingOptions(max_length=3))
    labels = ("entailment", "a b c d e f g")
    task = dataclasses.replace(get_task("tinyworld_rte"), shorten="premise")
    predictor.add("own", prompts["three"], task=task, labels=labels)
    predictor.add("bare", prompts["three"])
    row = {"premise": "a bird " * 9, "hypothesis": "a b"}
    whole = len(predictor.vocabulary.encode(task.inputs_of({**row, "premise": ""})))
    assert whole < 24, "the rest of the text has room"
    (answer,) = predictor.predict([Example(prompt="own", inputs=row)])
    assert list(answer.scores) == list(labels) and not answer.truncated
    assert (2, 7) not in {shape[3:] for shape in predictor.shapes}
    assert {shape[3] for shape in predictor.shapes} == {2}
    (generated,) = predictor.predict([Example(prompt="own", inputs=row, labels=())])
    assert generated.scores == {} and generated.text not in labels
    with pytest.raises(UserError, match="example 1: a label has"):
        predictor.predict([Example(prompt="bare", inputs="a", labels=labels)])
    with pytest.raises(UserError, match='"bare" names no task'):
        predictor.predict([Example(prompt="bare", inputs=row)])
    with pytest.raises(EmptyExample):
        predictor.predict([Example(prompt="own", inputs={"premise": "", "hypothesis": " "})])


def test_weights_of_the_model_are_batched_apart(base):
    """And answer as the model that they make."""
    config, params, vocabulary = base
    weights = {"token_embedder/embedding": params["token_embedder"]["embedding"] * -2.0}
    tuned, _ = injected(params, Injection(weights=weights))
    predictor = Predictor(config, params, vocabulary, max_input_length=16)
    predictor.add("tuned", Injection(weights=weights))
    predictor.add("plain", Injection())
    examples = [
        Example(prompt=name, inputs=text, labels=LABELS)
        for name, text in zip(
            ["tuned", "plain"] * 2, ["a", "a", "the bird", "the bird"], strict=True
        )
    ]
    found = predictor.predict(examples)
    for model, answers in ((tuned["params"], found[::2]), (params, found[1::2])):
        alone = Predictor(config, model, vocabulary, max_input_length=16)
        alone.add("tuned", Injection())
        expected = alone.predict(examples[::2])
        for answer, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(
                list(answer.scores.values()), list(other.scores.values()), rtol=1e-5
            )
    assert found[0].scores != found[1].scores
