"""What an answer is made of: pooling weights, effective attention, coverage."""

import numpy as np
import pytest

from workbench import plots


def alt(fig):
    return fig.layout.meta["alt"]


def test_pooling_says_entropy_and_the_mass_of_the_heaviest():
    weights = np.array([0.5, 0.25, 0.125, 0.125])
    fig = plots.pooling_bars(weights, top=2)
    entropy = -(weights * np.log(weights)).sum()
    assert f"entropy {entropy:.2f} of {np.log(4):.2f} nats, top 2 hold 75%" in fig.layout.meta["subtitle"]
    assert "heaviest step 0 with 50.0%" in alt(fig)
    np.testing.assert_allclose(fig.data[0].y, weights)
    assert fig.layout.shapes[0].y0 == 0.25
    assert fig.layout.yaxis.range[0] == 0


def test_even_weights_spread_over_all_steps():
    assert plots.pooling_bars(np.full(50, 0.02)).layout.meta["title"] == "The weights spread over 50 of 50 steps"


def test_long_pooling_weights_are_summed_not_averaged():
    weights = np.random.default_rng(0).dirichlet(np.ones(4000))
    fig = plots.pooling_bars(weights)
    assert fig.data[0].y.sum() == pytest.approx(1)
    np.testing.assert_allclose(fig.data[0].y[0], weights[:10].sum(), rtol=1e-5)
    assert "steps pooled 10:1 (sum)" in alt(fig)


def test_arms_are_facets_on_one_scale():
    fig = plots.pooling_bars({"attention": [0.1, 0.9], "mean": [0.5, 0.5]})
    assert fig.layout.yaxis.range == fig.layout.yaxis2.range
    assert "2 facets on one scale" in alt(fig)
    assert fig.layout.annotations[0].text.startswith("<b>attention</b>  entropy 0.33")
    assert fig.layout.meta["title"].startswith("The weights of attention spread over 1.38")


def test_what_are_no_pooling_weights_is_refused():
    with pytest.raises(ValueError, match=r"weights adds up to 1.7, the smallest is 0.8; pooling weights"):
        plots.pooling_bars([0.9, 0.8])
    with pytest.raises(ValueError, match="use attention_row"):
        plots.pooling_bars([1.5, -0.5])
    with pytest.raises(ValueError, match=r"the numbers of steps differ: a has 1, b has 2"):
        plots.pooling_bars({"a": [1.0], "b": [0.5, 0.5]})
    with pytest.raises(ValueError, match="weights has 0 arms"):
        plots.pooling_bars({})


def triangle(steps=30, signed=True):
    full = np.tril(np.random.default_rng(0).normal(size=(steps, steps)))
    return full if signed else np.abs(full)


def test_the_map_is_a_triangle_that_keeps_its_signs():
    full = triangle()
    fig = plots.attention_map(full)
    drawn = fig.data[0].z
    np.testing.assert_allclose(drawn[np.tril_indices(30)], full[np.tril_indices(30)], rtol=1e-6)
    assert np.isnan(drawn[np.triu_indices(30, 1)]).all()
    assert fig.layout.coloraxis.cmin == -fig.layout.coloraxis.cmax
    assert "not normalised: absolute weights of a row add up to" in fig.layout.meta["subtitle"]
    assert "missing" not in alt(fig)


def test_weights_of_one_sign_have_a_sequential_scale():
    assert plots.attention_map(triangle(signed=False)).layout.coloraxis.cmin == 0


def test_rows_can_be_normalised_and_it_is_said():
    fig = plots.attention_map(triangle(), per_row=True)
    np.testing.assert_allclose(np.nansum(np.abs(fig.data[0].z), axis=1), 1, rtol=1e-5)
    assert "each row divided by the sum of its absolute weights" in fig.layout.meta["subtitle"]


def test_the_map_says_how_far_back_the_last_answer_looks():
    full = np.zeros((20, 20))
    full[19, [19, 15, 5]] = [0.3, -0.3, 0.4]
    assert "half of the weight in the last 5 steps, 90 % in the last 15" in alt(plots.attention_map(full))


def test_what_is_no_map_is_refused():
    with pytest.raises(
        ValueError, match=r"weights has 513 steps, and a map shows 512 at most; .* attention_row, .*coverage"
    ):
        plots.attention_map(np.zeros((513, 513)))
    with pytest.raises(ValueError, match=r"weights has shape \(3, 4\)"):
        plots.attention_map(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="above the diagonal are not 0"):
        plots.attention_map(np.ones((3, 3)))


def test_a_row_is_drawn_up_to_its_answer():
    fig = plots.attention_row([0.1, -0.2, 0.7, 99.0], step=2)
    positive = next(trace for trace in fig.data if trace.mode == "markers")
    assert list(positive.x) == [0, 2]
    np.testing.assert_allclose(positive.y, [0.1, 0.7], rtol=1e-6)
    assert "Absolute weights add up to 1, signed to 0.6" in alt(fig)
    assert "Weights from -0.2 (step 1) to 0.7 (step 2)" in alt(fig)


def test_a_row_says_how_far_back_half_of_it_lies():
    row = np.zeros(100)
    row[[99, 90, 10]] = [0.4, -0.4, 0.2]
    fig = plots.attention_row(row)
    assert fig.layout.meta["title"] == "Half of the weight in the last 10 steps, 90 % in the last 90"
    assert [tuple(trace.x) for trace in fig.data][-1] == (90, 10)


def test_a_long_row_keeps_its_spikes():
    row = np.random.default_rng(0).normal(0, 0.01, 50_000)
    row[[12_345, 40_000]] = [3.0, -4.0]
    fig = plots.attention_row(row)
    heads = [trace for trace in fig.data if trace.mode == "markers"]
    assert 12_345 in heads[0].x
    assert 40_000 in heads[1].x
    assert "lowest and highest of each 50 steps" in fig.layout.meta["subtitle"]


def test_a_row_without_weight_is_said_to_have_none():
    assert plots.attention_row(np.zeros(5)).layout.meta["title"] == "Every weight is 0"
    with pytest.raises(ValueError, match="step=5 is not one of 0 to 4"):
        plots.attention_row(np.zeros(5), step=5)


def test_coverage_counts_the_heaviest_steps_whatever_their_sign():
    rows = np.array([[0.5, -0.25, 0.15, 0.1], [0.1, 0.15, 0.25, -0.5]])
    fig = plots.coverage(rows)
    line = next(trace for trace in fig.data if trace.name)
    np.testing.assert_allclose(line.y, [0.5, 0.75, 0.9, 1.0], rtol=1e-6)
    assert "weights: 50 % in 1, 90 % in 3 steps (median of 2 answers)" in alt(fig)


def test_coverage_names_who_needs_the_fewest():
    sharp, even = np.eye(40)[:5] + 1e-6, np.ones((5, 40))
    fig = plots.coverage({"even": even, "sharp": sharp})
    assert fig.layout.meta["title"] == "sharp holds 90 % of its weight in 1 of 40 steps"
    assert "even: 50 % in 20, 90 % in 36 steps" in alt(fig)


def test_answers_without_weight_are_left_out_and_counted():
    fig = plots.coverage({"a": np.array([[0.0, 0.0], [1.0, 0.0]])})
    assert "1 answer without any weight left out" in alt(fig)
    with pytest.raises(ValueError, match=r"rows\['a'\] has no weight in any of its 2 answers"):
        plots.coverage({"a": np.zeros((2, 3))})
