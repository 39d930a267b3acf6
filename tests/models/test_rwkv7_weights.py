"""Official RWKV-7 weights: trained ones do what their authors say, published ones are the equations, both go back.

The trained model reverses numbers: it must go on after "12345," with "54321#".
"""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from workbench.data.registry import Dataset, fetch
from workbench.models.language import LanguageModelConfig
from workbench.models.layouts import RWKV7StackConfig
from workbench.models.rwkv7_weights import CONSTANT, ROSA, from_official, official_language, to_official

FILE = Dataset(
    name="rwkv7_reverse",
    file="weights/rwkv7_reverse_L2_D32.pth",
    sha256="111a0c49a07aae42173819351f8519637fdcc7e4da4eeb8dec7c85983c151f82",
    licence="Apache-2.0",
    source="github.com/BlinkDL/RWKV-LM, RWKV-v8/260123_reverse_L2_only_rwkv7.pth",
)
TOKENS = "0123456789,#"
LONGEST, WIDTH, HEAD, VOCABULARY = 60, 32, 16, 11
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def reverser():
    """The weights as their authors published them."""
    try:
        path = fetch(FILE.name, {FILE.name: FILE})
    except FileNotFoundError as error:
        pytest.skip(f"needs the trained weights: {error}")
    return torch.load(path, weights_only=True, map_location="cpu")


def load(official, **changes):
    """Our model with these weights."""
    ours = from_official(official)
    config = official_language(ours)
    model = config.model_copy(update={"stack": config.stack.model_copy(update=changes)}).build()
    model.load_state_dict({name: x for name, x in ours.items() if name in model.state_dict()})
    return model.eval()


def numbers(seed, each):
    """As many numbers of each length from 1 to 60 digits, drawn as the authors' test draws them."""
    g = random.Random(seed)
    return [
        str(g.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))
        for digits in range(1, LONGEST + 1)
        for _ in range(each)
    ]


def encode(texts):
    """Tokens, padded with a token that is not theirs (B, T), and lengths (B,)."""
    lengths = torch.tensor([len(text) for text in texts])
    rows = [[TOKENS.index(c) for c in text] + [0] * (int(lengths.max()) - len(text)) for text in texts]
    return torch.tensor(rows), lengths


@torch.no_grad()
def mistakes(model, digits):
    """Where the likeliest next token is not the right one, (number, step), and how many were asked: digits and #."""
    wrong, asked = [], 0
    for first in range(0, len(digits), 300):
        batch = digits[first : first + 300]
        tokens, lengths = encode([f"{number},{number[::-1]}#" for number in batch])
        answers = model(tokens, lengths=lengths)[0].argmax(-1)[:, :-1]
        comma = lengths[:, None] // 2 - 1
        step = torch.arange(tokens.shape[1] - 1)
        counts = (step >= comma) & (step < lengths[:, None] - 1)
        missed = (counts & (answers != tokens[:, 1:])).nonzero().tolist()
        wrong += [(first + row, at) for row, at in missed]
        asked += int(counts.sum())
    return wrong, asked


def test_it_reverses_every_number_of_the_authors_test(reverser):
    """All 18,900 tokens. The authors add up the totals that they have after each length, and so count 396,500."""
    assert mistakes(load(reverser), numbers(seed=42, each=10)) == ([], 18_900)
    assert sum((61 - digits) * 10 * (digits + 1) for digits in range(1, 61)) == 396_500


def test_of_fresh_numbers_it_misses_the_same_few_in_float64(reverser):
    """Five of 37,800 tokens: the model's own mistakes, which rounding does not change and its equations make."""
    model, fresh = load(reverser), numbers(seed=0, each=20)
    wrong, asked = mistakes(model, fresh)
    assert (len(wrong), asked) == (5, 37_800)
    assert mistakes(model.double(), fresh) == (wrong, asked)
    written_out = WrittenOut(training_names(reverser))
    for number, step in wrong:
        tokens, _ = encode([f"{fresh[number]},{fresh[number][::-1]}#"])
        logits = written_out(tokens[0])
        assert logits[step].argmax() != tokens[0, step + 1]
        assert_close(model(tokens)[0][0], logits, **TIGHT)


def test_without_the_constants_of_its_rosa_modules_it_fails(reverser):
    assert all(reverser[f"rosa{block}.o.bias"].abs().max() > 1 for block in (1, 2))
    wrong, asked = mistakes(load(reverser, output_bias=False), numbers(seed=42, each=1))
    assert len(wrong) > 0.4 * asked


@torch.no_grad()
def test_it_reverses_a_ragged_batch_token_by_token(reverser):
    """Numbers of 1 to 60 digits in one pass; from its state on, the model reads what it wrote itself."""
    model, asked = load(reverser), numbers(seed=42, each=1)
    tokens, lengths = encode([f"{number}," for number in asked])
    logits, state = model(tokens, lengths=lengths)
    token = logits[torch.arange(len(asked)), lengths - 1].argmax(-1)
    written = [token]
    for _ in range(LONGEST):
        logits, state = model(written[-1][:, None], state)
        written.append(logits[:, 0].argmax(-1))
    texts = ["".join(TOKENS[c] for c in row).partition("#")[0] for row in torch.stack(written, 1).tolist()]
    assert texts == [number[::-1] for number in asked]


def test_its_configuration_is_read_from_the_weights(reverser):
    assert official_language(from_official(reverser)) == LanguageModelConfig(
        vocabulary=12,
        stack=RWKV7StackConfig(
            width=32, layers=2, head_size=16, ranks=(8, 8, 8, 8), norm_eps=64e-5, output_bias=True, mlp_factor=4
        ),
        head_bias=True,
    )


def test_its_weights_go_back_bit_by_bit(reverser):
    """All but what is without effect in the rosa modules."""
    back = to_official(from_official(reverser), "demonstration")
    idle = {f"rosa{block}.{leaf}" for block in (1, 2) for leaf in ROSA if leaf != "o.bias"}
    assert {name: x.shape for name, x in back.items()} == {name: x.shape for name, x in reverser.items()}
    assert [name for name, x in reverser.items() if name not in idle and not torch.equal(x, back[name])] == []
    again = from_official(back)
    assert all(torch.equal(x, again[name]) for name, x in from_official(reverser).items())


def published(layers=3, ranks=(5, 6, 3, 7), dtype=torch.float64, factor=4):
    """Random weights by the names and in the shapes of the published models, which lack v0 ... v2 in layer 0."""
    vectors = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a")
    att = dict.fromkeys(vectors, (1, 1, WIDTH)) | {"r_k": (WIDTH // HEAD, HEAD)}
    for letter, rank in zip("wavg", ranks, strict=True):
        att |= {f"{letter}1": (WIDTH, rank), f"{letter}2": (rank, WIDTH)}
    att |= {f"{name}.weight": (WIDTH, WIDTH) for name in ("receptance", "key", "value", "output")}
    att |= {"ln_x.weight": (WIDTH,), "ln_x.bias": (WIDTH,)}
    ffn = {"x_k": (1, 1, WIDTH), "key.weight": (factor * WIDTH, WIDTH), "value.weight": (WIDTH, factor * WIDTH)}
    shapes = {"emb.weight": (VOCABULARY, WIDTH), "head.weight": (VOCABULARY, WIDTH)}
    norms = ["blocks.0.ln0", "ln_out", *(f"blocks.{at}.{norm}" for at in range(layers) for norm in ("ln1", "ln2"))]
    shapes |= {f"{norm}.{leaf}": (WIDTH,) for norm in norms for leaf in ("weight", "bias")}
    for at in range(layers):
        shapes |= {f"blocks.{at}.att.{name}": s for name, s in att.items() if at or name not in ("v0", "v1", "v2")}
        shapes |= {f"blocks.{at}.ffn.{name}": s for name, s in ffn.items()}
    return {name: (0.4 * torch.randn(shape)).to(dtype) for name, shape in shapes.items()}


def training_names(demonstration):
    """The demonstration's weights in float64, by the names of the training code."""
    paths = {"e": "emb", "lno": "ln_out", "o": "head"}
    for at in (0, 1):
        block = {"rwkv{}": "att", "ffn{}": "ffn", "rosa{}": "rosa", "ln{}a": "ln1", "ln{}b": "ln2", "ln{}c": "ln3"}
        paths |= {theirs.format(at + 1): f"blocks.{at}.{name}" for theirs, name in block.items()}
    parts = {name: name.partition(".") for name in demonstration}
    return {f"{paths[parts[name][0]]}.{parts[name][2]}": x.double() for name, x in demonstration.items()}


class WrittenOut:
    """RWKV-7 by its equations on weights by their official names, one step and one head at a time.

    A rosa module is the bias of its output: all else in it is multiplied by 0.
    """

    def __init__(self, weights):
        self.w = weights
        self.layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-5)

    def shifted(self, x, share):
        return x + (F.pad(x, (0, 0, 1, 0))[:-1] - x) * share.flatten()

    def low_rank(self, att, letter, x, act=lambda x: x):
        return att.get(f"{letter}0", x.new_zeros(1)).flatten() + act(x @ att[f"{letter}1"]) @ att[f"{letter}2"]

    def time_mix(self, at, x, v_first):
        path = f"blocks.{at}.att."
        att = {name.removeprefix(path): p for name, p in self.w.items() if name.startswith(path)}
        x_r, x_w, x_k, x_v, x_a, x_g = (self.shifted(x, att[f"x_{letter}"]) for letter in "rwkvag")
        r, k, v = (y @ att[f"{n}.weight"].T for n, y in (("receptance", x_r), ("key", x_k), ("value", x_v)))
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.low_rank(att, "w", x_w, torch.tanh)))
        a = torch.sigmoid(self.low_rank(att, "a", x_a))
        gate = self.low_rank(att, "g", x_g, torch.sigmoid)
        if at == 0:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.low_rank(att, "v", x_v))
        kappa, k = k * att["k_k"].flatten(), k * (1 + (a - 1) * att["k_a"].flatten())
        outputs = []
        for h in range(WIDTH // HEAD):
            part = slice(h * HEAD, (h + 1) * HEAD)
            memory, rows = x.new_zeros(HEAD, HEAD), []
            for t in range(len(x)):
                key = kappa[t, part] / kappa[t, part].norm()
                turn = torch.diag(w[t, part]) - torch.outer(key, a[t, part] * key)
                memory = memory @ turn + torch.outer(v[t, part], k[t, part])
                y = memory @ r[t, part]
                y = (y - y.mean()) / torch.sqrt(y.var(correction=0) + 64e-5)
                y = y * att["ln_x.weight"][part] + att["ln_x.bias"][part]
                rows.append(y + (r[t, part] * k[t, part] * att["r_k"][h]).sum() * v[t, part])
            outputs.append(torch.stack(rows))
        return (torch.cat(outputs, 1) * gate) @ att["output.weight"].T, v_first

    def __call__(self, tokens):
        """Logits (T, vocabulary) of one sequence."""
        x, v_first = self.w["emb.weight"][tokens], None
        if "blocks.0.ln0.weight" in self.w:
            x = self.norm("blocks.0.ln0", x)
        for at in range(self.layers):
            y, v_first = self.time_mix(at, self.norm(f"blocks.{at}.ln1", x), v_first)
            x = x + y + self.w.get(f"blocks.{at}.rosa.o.bias", 0)
            y = self.shifted(self.norm(f"blocks.{at}.ln2", x), self.w[f"blocks.{at}.ffn.x_k"])
            x = (
                x
                + torch.relu(y @ self.w[f"blocks.{at}.ffn.key.weight"].T) ** 2
                @ self.w[f"blocks.{at}.ffn.value.weight"].T
            )
        return self.norm("ln_out", x) @ self.w["head.weight"].T + self.w.get("head.bias", 0)


@pytest.mark.parametrize("layers", [1, 3])
def test_published_weights_compute_their_equations(layers):
    official = published(layers)
    model, tokens = load(official).double(), torch.randint(VOCABULARY, (2, 9))
    model.load_state_dict(from_official(official))  # in full width
    wanted = torch.stack([WrittenOut(official)(row) for row in tokens])
    assert wanted.std() > 0.1
    assert_close(model(tokens)[0], wanted, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_published_weights_go_back_bit_by_bit(layers, dtype):
    official = published(layers, dtype=dtype, factor=2)
    back = to_official(from_official(official))
    assert back.keys() == official.keys()
    assert all(torch.equal(x, back[name]) and x.dtype == back[name].dtype for name, x in official.items())


@pytest.mark.parametrize(
    ("naming", "options", "ends"),
    [
        ("published", {}, {"embedding_norm": True}),
        ("demonstration", {"output_bias": True, "mlp_factor": 2}, {"head_bias": True}),
        ("demonstration", {}, {}),
    ],
)
def test_fresh_weights_of_ours_go_there_and_back(naming, options, ends):
    """Those of layer 0's share among them, which fresh weights have and no one reads."""
    stack = RWKV7StackConfig(width=WIDTH, head_size=HEAD, ranks=(5, 6, 3, 7), norm_eps=64e-5, **options)
    model = LanguageModelConfig(vocabulary=VOCABULARY, stack=stack, **ends).build()
    again = from_official(to_official(model.state_dict(), naming))
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(x, again[name]) for name, x in model.state_dict().items())
    assert official_language(again) == model.config


@pytest.mark.parametrize(
    ("drop", "add", "says"),
    [
        ("blocks.1.att.w1", {}, "blocks.1.att lacks w1 and has the unknown nothing"),
        ("blocks.0.", {}, r"hold blocks \[1\], and must hold all from 0 upwards"),
        (
            "nothing",
            {"blocks.0.att.time_decay": torch.ones(1)},
            "blocks.0.att lacks nothing and has the unknown time_d",
        ),
        ("nothing", {"vision.weight": torch.ones(1)}, "hold vision, which no RWKV-7 network here has"),
    ],
    ids=["missing", "gap", "another-version", "another-part"],
)
def test_weights_without_a_counterpart_here_are_refused(drop, add, says):
    official = {name: x for name, x in published(2).items() if not name.startswith(drop)} | add
    with pytest.raises(ValueError, match=says):
        from_official(official)


def test_a_trained_rosa_module_is_refused(reverser):
    with pytest.raises(ValueError, match=r"blocks.1 holds a trained rosa module, which RWKV-7 has not"):
        from_official(reverser | {"rosa2.rosa_qkv.emb": torch.ones(1, 1, WIDTH)})


@pytest.mark.usefixtures("unchecked")
def test_weights_without_a_counterpart_there_are_refused():
    ours = from_official(published(1))
    with pytest.raises(
        ValueError, match="for the demonstration naming, lacks nothing and has the unknown embedding_norm"
    ):
        to_official(ours, "demonstration")
    with pytest.raises(ValueError, match=rf"stack.blocks.0.cell lacks nothing and has the unknown {CONSTANT}"):
        to_official(ours | {f"stack.blocks.0.cell.{CONSTANT}": torch.ones(WIDTH)})
    with pytest.raises(ValueError, match="naming 'fla' is unknown; choose one of published, demonstration"):
        to_official(ours, "fla")
