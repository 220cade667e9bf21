from __future__ import annotations

import pytest

from attfc_planner.plan.arcface_torch import DEFAULTS, read_run
from attfc_train.errors import ProfileError

CONFIG = """\
from easydict import EasyDict as edict

config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "r50"
config.resume = False
config.output = None
config.embedding_size = 512
config.sample_rate = 0.2
config.fp16 = True
config.weight_decay = 5e-4
config.batch_size = 128
config.gradient_acc = 4
config.lr = 0.1
config.rec = "/data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.num_epoch = 20
config.warmup_epoch = config.num_epoch // 10
config.val_targets = ["lfw", "agedb_30"]
"""


@pytest.fixture
def run(tmp_path):
    def of(text, network=None):
        path = tmp_path / "config.py"
        path.write_text(text)
        return read_run(path, network)

    return of


def test_a_run(run):
    found = run(CONFIG)
    assert (found.network, found.num_ids, found.num_images, found.epochs) == ("r50", 2059906, 42474557, 20)
    assert (found.batch_size, found.accumulation, found.precision) == (512, 4, "fp16")
    assert (found.head, found.sample_rate) == ("partial_fc", 0.2)
    assert (found.margin.kind, found.margin.margin) == ("cosface", 0.4)
    assert (found.data, found.val) == ("/data/WebFace42M", ("/data/WebFace42M/lfw.bin", "/data/WebFace42M/agedb_30.bin"))


def test_defaults_are_said(run):
    notes = " | ".join(run(CONFIG.replace("config.batch_size = 128\n", "")).notes)
    assert "not in the config, so from arcface_torch's own base.py: interclass_filtering_threshold 0, batch_size 128" in notes


def test_a_base_beside_it_has_its_say(run, tmp_path):
    (tmp_path / "base.py").write_text(
        "from easydict import EasyDict\nconfig = EasyDict()\nconfig.batch_size = 64\nconfig.sample_rate = 1\n"
    )
    found = run(CONFIG.replace("config.batch_size = 128\n", ""))
    assert found.batch_size == 64 * 4
    notes = " | ".join(found.notes)
    assert "from base.py beside it, or arcface_torch's own base.py: interclass_filtering_threshold 0, batch_size 64" in notes


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        ("margin_list = (1.0, 0.5, 0.0)", ("arcface", 0.5, 1, 0)),
        ("margin_list = [1, 0, 0.35]", ("cosface", 0.35, 1, 0)),
        ("margin_list = (1.0, 0.3, 0.2)", ("combined", 0.3, 1, 0.2)),
        ("loss = 'arcface'", ("arcface", 0.5, 1, 0)),
        ("loss = 'cosface'", ("cosface", 0.4, 1, 0)),
    ],
)
def test_margins(run, margin, expected):
    found = run(CONFIG.replace("margin_list = (1.0, 0.0, 0.4)", margin)).margin
    assert (found.kind, found.margin, found.multiplier, found.cosine_margin) == expected


def test_a_full_layer_and_no_data(run):
    text = CONFIG.replace("sample_rate = 0.2", "sample_rate = 1").replace('"/data/WebFace42M"', '"synthetic"')
    found = run(text.replace("config.num_image = 42474557\n", ""))
    assert (found.head, found.data, found.val, found.num_images) == ("full_fc", None, (), None)


def test_what_is_not_known_is_named(run):
    notes = " | ".join(run(CONFIG + "config.mystery = 3\nconfig.optimizer = 'adamw'\nconfig.other = f()\nprint(1)\n").notes)
    assert "options not known here and passed over: mystery, other (line 23: f() is not evaluated)" in notes
    assert "optimizer 'adamw'" in notes
    assert "not executed: line 24: print(1)" in notes
    assert "lr 0.1, warmup_epoch 2, weight_decay 0.0005" in notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_classes = [881, 12]", r"config.num_classes of '.*' must be a number from 2 to 1e\+12, but got \[881, 12\]"),
        ("num_classes = count()", r"must be a literal or arithmetic, but got line 16: count\(\) is not evaluated"),
        ("num_classes = 2.5", "must be a whole number"),
        ("num_classes = True", "must be a number"),
        ("num_classes = None", "but got none"),
    ],
)
def test_what_is_needed_is_refused_in_its_own_name(run, line, message):
    with pytest.raises(ProfileError, match=message):
        run(CONFIG.replace("num_classes = 2059906", line))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sample_rate = 0.2", "sample_rate = 0"),
        ("batch_size = 128", "batch_size = 1"),
        ("fp16 = True", "fp16 = 'yes'"),
        ('network = "r50"', "network = 50"),
        ("(1.0, 0.0, 0.4)", "(1.0, 0.0)"),
        ("(1.0, 0.0, 0.4)", "(9.0, 0.0, 0.4)"),
        ("margin_list = (1.0, 0.0, 0.4)", "loss = 'sphere'"),
    ],
)
def test_values_out_of_range_are_refused(run, old, new):
    with pytest.raises(ProfileError, match=r"config\."):
        run(CONFIG.replace(old, new))


def test_another_network_can_be_named(run):
    assert run(CONFIG, "r100").network == "r100"


def test_the_defaults_are_those_of_the_trainer():
    assert (DEFAULTS["network"], DEFAULTS["batch_size"], DEFAULTS["fp16"]) == ("r50", 128, False)
