"""Rows that join and leave at every token get the tokens that they get alone, and that plain sampling gives."""

import pytest
from tiny import tiny_model, tiny_tokenizer

from alignlab.models.continuous_batch import Batch, Row
from alignlab.models.sampling import Sampling, sample_token_ids

PROMPTS = [[4, 6, 7, 8, 9, 5], [10], [11, 12, 13, 14, 15] * 5, [16, 17], [6], [7, 7, 7]]


def rows():
    """Return six rows with settings of their own, and the tokens that plain sampling gives to each alone."""
    model, tokenizer, made, alone = tiny_model(), tiny_tokenizer(), [], []
    for number, ids in enumerate(PROMPTS):
        temperature, top_p, limit = (0.9, 0.0, 1.3)[number % 3], (1.0, 0.8)[number % 2], 4 + 5 * number
        made.append(Row(ids, limit, temperature, top_p, seed=number))
        sampling = Sampling(max(temperature, 1e-6), top_p, limit, 1)
        alone.append(list(sample_token_ids(model, tokenizer, [ids], sampling, number)[0].tokens))
    return Batch(model, tokenizer), made, alone


@pytest.mark.parametrize("joins", [[0] * 6, [0, 1, 1, 3, 8, 12], [12, 0, 9, 2, 4, 4]], ids=["at once", "late", "mixed"])
def test_a_row_gets_the_same_tokens_alone_and_in_any_batch(joins):
    batch, made, alone = rows()
    for step in range(50):
        batch.step([row for row, join in zip(made, joins, strict=True) if join == step])
    assert [row.tokens for row in made] == alone
    assert not batch.rows
    assert len(batch.lengths) == 0


def test_a_row_that_is_removed_leaves_at_once_and_changes_no_other():
    batch, made, alone = rows()
    batch.step(made)
    batch.remove([made[2]])
    assert made[2] not in batch.rows
    for _ in range(50):
        batch.step()
    assert len(made[2].tokens) == 1
    assert [row.tokens for place, row in enumerate(made) if place != 2] == [*alone[:2], *alone[3:]]


def test_an_empty_batch_does_nothing():
    assert Batch(tiny_model(), tiny_tokenizer()).step() == []
