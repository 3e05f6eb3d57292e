"""Compiles the programs for a server's first questions in advance."""

from prompt_tuning.evaluation.predictor import SHORTEST_INPUT, Example, Predictor

LABELS = ("a", "b")


def warm_up(predictor: Predictor, tokens: int) -> int:
    """Answers dummy questions, so that programs for short inputs are compiled.

    Each prompt shape answers one question of each padded length up to `tokens`, by generation and
    by ranking. Programs for batches of several questions are compiled when first needed.

    Returns:
      The number of questions answered.
    """
    by_shape = {}
    for name in predictor.prompts:
        prepared = predictor.prepare(Example(prompt=name, inputs="a", labels=()))
        by_shape.setdefault((prepared.prompt.slots, prepared.shape[0]), name)
    longest = min(tokens, predictor.max_input_length)
    lengths = [SHORTEST_INPUT]
    while lengths[-1] < longest:
        lengths.append(lengths[-1] * 2)
    asked = 0
    for name in by_shape.values():
        for length in lengths:
            text = _text_of(predictor, length)
            for labels in ((), LABELS):
                predictor.predict([Example(prompt=name, inputs=text, labels=labels)])
                asked += 1
    return asked


def _text_of(predictor: Predictor, length: int) -> str:
    """Returns a text of about `length` tokens, including the end of sequence."""
    text = "a"
    while len(predictor.vocabulary.encode(f"{text} a")) < length:
        text += " a"
    return text
